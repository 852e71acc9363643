"""`sfvqa batch`: ask questions about many videos, and keep every answer, or what went wrong, as a line of JSON."""

import typer

from sfvqa.cli import answer_options, cache_options, frame_options, options, writing_options
from sfvqa.cli.batch import cluster_options
from sfvqa.cli.batch import options as batch_options

HELP = """\b
[bold]Examples[/bold]
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl
  sfvqa batch "videos/**/*.mp4" --questions questions.txt -o answers.jsonl
  sfvqa batch manifest.csv -o answers.jsonl --item-timeout 600
  sfvqa batch videos/ --question "Which sport?" --choices golf,tennis -o a.jsonl
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl --dry-run
  sfvqa batch videos/ --question "What happens?" --shard 2/4 -o part2.jsonl
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl --ray

Answer questions about many videos, one JSON line an item, as each finishes.
What cannot be answered gets a line that says why, and the rest goes on (exit
code 6). The same command again goes on where it was ended; an item is asked
anew only if its video, its question or a setting is another."""


def batch(
    context: typer.Context,
    source: batch_options.Source,  # noqa: ARG001  read from the context, as most are
    out: batch_options.Out,
    questions: batch_options.QuestionOption = None,  # noqa: ARG001
    question_file: batch_options.QuestionFile = None,  # noqa: ARG001
    shard: batch_options.Shard = None,  # noqa: ARG001
    model: options.Model = None,  # noqa: ARG001
    frames: frame_options.Frames = None,  # noqa: ARG001
    sampling: frame_options.SamplingOption = None,  # noqa: ARG001
    fps: frame_options.Fps = None,  # noqa: ARG001
    timestamps: frame_options.Timestamps = None,  # noqa: ARG001
    start: frame_options.Start = None,  # noqa: ARG001
    end: frame_options.End = None,  # noqa: ARG001
    crop: frame_options.CropOption = None,  # noqa: ARG001
    reader: frame_options.ReaderOption = "auto",  # noqa: ARG001
    read_threads: frame_options.ReadThreads = None,  # noqa: ARG001
    read_timeout: frame_options.ReadTimeout = 600.0,  # noqa: ARG001
    max_new_tokens: writing_options.MaxNewTokens = 256,  # noqa: ARG001
    temperature: writing_options.Temperature = 0.0,  # noqa: ARG001
    top_p: writing_options.TopP = 1.0,  # noqa: ARG001
    repetition_penalty: writing_options.RepetitionPenalty = 1.0,  # noqa: ARG001
    seed: writing_options.Seed = 0,  # noqa: ARG001
    static_decode: writing_options.StaticDecode = False,  # noqa: ARG001
    slow_attention: writing_options.SlowAttentionOption = "always",  # noqa: ARG001
    choices: answer_options.Choices = None,  # noqa: ARG001
    system: answer_options.System = None,  # noqa: ARG001
    template: answer_options.Template = None,  # noqa: ARG001
    subtitles: batch_options.Subtitles = None,  # noqa: ARG001
    subtitle_tokens: answer_options.SubtitleTokens = None,  # noqa: ARG001
    evidence: answer_options.Evidence = False,  # noqa: ARG001
    device: options.Device = "auto",  # noqa: ARG001
    dtype: options.DtypeOption = "auto",  # noqa: ARG001
    attention: options.AttentionOption = "sdpa",  # noqa: ARG001
    quant: options.QuantOption = "auto",  # noqa: ARG001
    random_weights: options.RandomWeights = False,  # noqa: ARG001
    batch_size: batch_options.BatchSizeOption = "auto",  # type: ignore[assignment]  # noqa: ARG001
    readers: batch_options.Readers = None,  # noqa: ARG001
    frames_ahead: batch_options.FramesAhead = 256,  # noqa: ARG001
    item_timeout: batch_options.ItemTimeout = None,  # noqa: ARG001
    max_failures: batch_options.MaxFailures = None,  # noqa: ARG001
    ray: cluster_options.Ray = False,  # noqa: ARG001
    ray_address: cluster_options.RayAddress = None,  # noqa: ARG001
    workers: cluster_options.Workers = None,  # noqa: ARG001
    gpus_per_worker: cluster_options.GpusPerWorker = None,  # noqa: ARG001
    retry_errors: batch_options.RetryErrors = False,  # noqa: ARG001
    overwrite: batch_options.Overwrite = False,
    no_cache: cache_options.NoCache = False,  # noqa: ARG001
    cache_size: cache_options.CacheSize = cache_options.DEFAULT_SIZE,  # noqa: ARG001
    full_hash: cache_options.FullHash = False,  # noqa: ARG001
    dry_run: batch_options.DryRun = False,
    json: batch_options.Json = False,
    quiet: batch_options.Quiet = False,
) -> None:
    """Find the items, check what can be checked, load, and answer them."""
    from sfvqa.batch.journal import Journal
    from sfvqa.cli.batch.dry_run import show_what_is_left
    from sfvqa.cli.batch.request import BatchRequest
    from sfvqa.cli.batch.running import run, show_summary
    from sfvqa.cli.render import Notices

    notices = Notices(quiet=quiet)
    request = BatchRequest.of(context, notices)
    if dry_run:
        raise typer.Exit(show_what_is_left(request, out, notices, overwrite=overwrite, json=json))
    if out.is_fifo():
        notices.note(f"Waiting for somebody to read from “{out}”.")
    with Journal(out, overwrite=overwrite) as journal:
        summary = run(request, journal, notices)
    raise typer.Exit(show_summary(summary, out, notices, json=json))
