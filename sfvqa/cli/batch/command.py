"""`sfvqa batch`: what is asked of which videos, how much at a time, and when it gives up."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfvqa.cli.answer_options import AnswerOptions, TurnOptions, read_questions
from sfvqa.cli.frame_options import FrameOptions, WindowedFrameOptions
from sfvqa.cli.model import ModelOptions, num_question_tokens
from sfvqa.cli.options import (
    AUTO,
    RARE,
    SETTING,
    CacheOptions,
    Count,
    DryRun,
    OptionGroup,
    OutputOptions,
    check_positive,
    parse_count,
    parse_file,
)
from sfvqa.errors import UsageError
from sfvqa.wording import first_few, plural

if TYPE_CHECKING:
    from sfvqa.batch.cluster.connection import ClusterOptions
    from sfvqa.batch.cluster.worker import ModelLoader
    from sfvqa.batch.item import Item
    from sfvqa.batch.plan import BatchModel, BatchOptions
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.speech import SpeechOptions
    from sfvqa.inference.video_cache.store import VideoCache


HELP = """\b
[bold]Examples[/bold]
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl
  sfvqa batch "videos/**/*.mp4" --questions questions.txt -o answers.jsonl
  sfvqa batch manifest.csv -o answers.jsonl --item-timeout 600
  sfvqa batch videos/ --question "Which sport?" --choices golf,tennis -o a.jsonl
  sfvqa batch videos/ --question "Who scores?" --window 30s -o answers.jsonl
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl --dry-run
  sfvqa batch videos/ --question "What happens?" --shard 2/4 -o part2.jsonl
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl --ray

Answer questions about many videos, writing one JSON line per item as it
finishes. An item that fails gets a line that says why, and the batch goes on
(exit code 6). Rerun the command to resume; an item is asked again only if its
video, its question or a setting has changed."""

Source = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER|GLOB|MANIFEST",
        help="A folder, searched with its subfolders; a quoted pattern; or a list of videos and questions, as JSON "
        "lines or CSV (- reads the list from standard input).",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class ItemOptions(OptionGroup):
    """What is asked."""

    panel = "What is asked"

    question: Annotated[
        list[str] | None,
        typer.Option("--question", metavar="QUESTION", help="Ask this about every video; repeat to ask more."),
    ] = None
    questions: Annotated[
        str | None,
        typer.Option(
            "--questions",
            metavar="FILE",
            help="Also ask the questions in a text file, one per line; - reads standard input.",
        ),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Process only share I of N of the videos, counted from 1; join the records with `sfvqa merge`.",
        ),
        RARE,
    ] = None

    def gather(self, source: str, notices: "Notices") -> "list[Item]":
        """The items of this run, at least one. Raises UsageError."""
        from sfvqa.batch.find_videos import gather_items
        from sfvqa.batch.item import parse_shard, take_shard
        from sfvqa.given_file import STANDARD_INPUT

        if self.questions == source == STANDARD_INPUT:
            raise UsageError(
                "Manifest and questions cannot both come from standard input.", "Name a file for one of them."
            )
        shard = None if self.shard is None else parse_shard(self.shard)
        questions = [*(self.question or ()), *(read_questions(self.questions) if self.questions else ())]
        said: list[str] = []
        with notices.waiting("Looking for videos"):
            items = gather_items(source, questions, said)
        for notice in said:
            notices.note(notice)
        if shard is None:
            return items
        share = take_shard(items, *shard)
        notices.note(f"Shard {self.shard}: {len(share):,} of the {plural(len(items), 'item')}.")
        return share


TextTracks = Annotated[
    Literal["auto"] | None,
    typer.Option(
        metavar="auto",
        help="auto: add each video's own text track to the prompt, with its times.",
        rich_help_panel="What the model is told",
    ),
]


@dataclass(frozen=True, kw_only=True)
class BatchAnswerOptions(AnswerOptions):
    """How `batch` answers: subtitles are those of each video."""

    subtitles: TextTracks = None


@dataclass(frozen=True, kw_only=True)
class WorkOptions(OptionGroup):
    """How much is done at a time, and when it gives up. Only RecordOptions makes an option of the first."""

    panel = "How it works"

    retry_errors: bool = False
    batch_size: Annotated[
        Count,
        typer.Option(
            parser=parse_count,
            metavar="N|auto",
            help="Answer up to N questions at once, about one or more videos; auto: as many as fit, at most 16.",
        ),
        SETTING,
        RARE,
    ] = AUTO
    readers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Read N videos at a time, ahead of the model (default: depends on the number of cores).",
        ),
        SETTING,
        RARE,
    ] = None
    frames_ahead: Annotated[
        int,
        typer.Option(metavar="N", min=8, help="Read at most N frames ahead of the model, over all videos."),
        SETTING,
        RARE,
    ] = 256
    item_timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            callback=check_positive,
            help="Give up on a video that takes longer to read or to encode, and on an answer that takes longer "
            "(default: after 10 minutes without progress in reading, or an hour in the model).",
        ),
        SETTING,
        RARE,
    ] = None
    max_failures: Annotated[int | None, typer.Option(metavar="N", min=1, help="Stop after N failures."), RARE] = None


@dataclass(frozen=True, kw_only=True)
class RecordOptions(WorkOptions):
    """The same, and where records are kept. UsageError when built for what contradicts itself."""

    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            parser=parse_file,
            metavar="FILE",
            help="Append the records here, one JSON object per line; - is standard output. Items in FILE are not asked "
            "again.",
            rich_help_panel=OutputOptions.panel,
        ),
    ]
    overwrite: Annotated[
        bool, typer.Option(help="Move an existing FILE aside and start over.", rich_help_panel=OutputOptions.panel)
    ] = False
    retry_errors: Annotated[bool, typer.Option(help="Retry the items that failed.")] = False

    def __post_init__(self) -> None:
        if self.overwrite and self.retry_errors:
            raise UsageError("--overwrite starts over, so there are no errors to retry.", "Leave out --retry-errors.")


@dataclass(frozen=True, kw_only=True)
class RayOptions(OptionGroup):
    """Whether a Ray cluster answers, and how. UsageError when built for what contradicts itself."""

    panel = "More than one machine or GPU (needs sfvqa\\[ray])"  # a bracket of markup, unless it is escaped

    ray: Annotated[
        bool,
        typer.Option(
            help="Run on a Ray cluster: the one at RAY_ADDRESS, else one started here with `ray start`, else a "
            "temporary one. Every node needs the videos at the same paths, and the model."
        ),
    ] = False
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="The cluster at HOST:PORT; implies --ray."), RARE
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Run N workers with a model each (default: one per GPU, or per node without GPUs)."
        ),
        SETTING,
        RARE,
    ] = None
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(
            metavar="G",
            min=0.0,
            help="Give each worker G GPUs; 0.5 lets two share one (default: 1 if the cluster has any).",
        ),
        SETTING,
        RARE,
    ] = None

    def __post_init__(self) -> None:
        for name in () if self.is_wanted else ("workers", "gpus_per_worker"):
            if self.is_flag(name):
                raise UsageError(f"--{name.replace('_', '-')} needs a Ray cluster.", "Add --ray.")
        if self.ray_address == "":  # an unset variable, most likely
            raise UsageError("--ray-address is empty.", "Name HOST:PORT, or use --ray alone.")

    @property
    def is_wanted(self) -> bool:
        """Whether a cluster answers."""
        return self.ray or self.ray_address is not None

    def cluster(self, device: str) -> "ClusterOptions | None":
        """The cluster, None for none. UsageError where Ray is not installed."""
        if not self.is_wanted:
            return None
        from sfvqa.batch.cluster.connection import ClusterOptions, check_installed

        check_installed()
        return ClusterOptions(self.ray_address, self.workers, self.gpus_per_worker, device)


def batch(
    source: Source,
    *,
    items: ItemOptions,
    work: RecordOptions,
    model: ModelOptions,
    frames: WindowedFrameOptions,
    answers: BatchAnswerOptions,
    ray: RayOptions,
    cache: CacheOptions,
    dry_run: DryRun = False,
    output: OutputOptions,
) -> None:
    """Find the items, check what can be checked, load the model, and answer."""
    from sfvqa.batch.journal import Journal
    from sfvqa.cli.batch.dry_run import show_what_is_left
    from sfvqa.cli.batch.running import run, show_summary

    if output.json and str(work.out) == "-":
        raise UsageError("Records and the summary cannot both go to standard output.", "Leave out --json.")
    notices, cluster = output.notices(), ray.cluster(model.device)
    if cluster is not None and model.model is None:  # what fits this machine says nothing of others
        raise UsageError("A cluster needs a named model.", "Name one with --model; it must be on every node.")
    answers.check(model)
    model.check(needs_weights=not dry_run)
    wanted = items.gather(source, notices)
    request = plan_batch(wanted, work, model, frames, answers, cluster, cache, notices)
    if dry_run:
        raise typer.Exit(show_what_is_left(request, work.out, notices, overwrite=work.overwrite, json=output.json))
    if work.out.is_fifo():
        notices.note(f"Waiting for a reader of “{work.out}”.")
    with Journal(work.out, overwrite=work.overwrite) as journal:
        summary = run(request, journal, notices)
    raise typer.Exit(show_summary(summary, f"Records: {work.out}", notices, json=output.json))


def _in_windows(
    items: "list[Item]", frames: FrameOptions, work: WorkOptions, cache: "VideoCache | None", notices: "Notices"
) -> "list[Item]":
    """An item a window, where windows are asked for. UsageError."""
    windows = frames.windows()
    if windows is None or not items:
        return items
    from sfvqa.batch.plan import default_num_readers
    from sfvqa.batch.windows import items_in_windows
    from sfvqa.video.sampling import SamplingOptions

    with notices.waiting("Looking for windows"):
        found = items_in_windows(
            items,
            windows,
            frames.resolve(SamplingOptions()),
            frames.read_options(),
            num_readers=work.readers or default_num_readers(),
            cache=cache,
        )
    notices.note(f"{plural(len(items), 'item')} asked in windows: {len(found):,}.")
    if whole := dict.fromkeys(item.name for item in found if not item.is_window):
        videos = f"{plural(len(whole), 'video')} ({first_few(list(whole))})"
        notices.warn(f"No windows were found in {videos}. What can be read after all is asked about as a whole.")
    return found


@dataclass(frozen=True)
class PlannedBatch:
    """The items, and how they are run, with every choice made that is made here.

    On a `cluster` each worker plans for itself: there `plan` is None, and `loader` loads the model.
    """

    items: "list[Item]"
    asked: "BatchModel"
    options: "BatchOptions"
    cache: "VideoCache | None"
    plan: "Plan | None"
    cluster: "ClusterOptions | None" = None
    loader: "ModelLoader | None" = None


def plan_batch(
    items: "list[Item]",
    work: WorkOptions,
    model: ModelOptions,
    frames: FrameOptions,
    answers: TurnOptions,
    cluster: "ClusterOptions | None",
    cache: CacheOptions,
    notices: "Notices",
) -> PlannedBatch:
    """Find the windows, choose the model and, without a cluster, what fits this machine; nothing is loaded.

    Raises ModelError, UsageError.
    """
    if answers.schema and any(item.choices for item in items):
        raise UsageError(
            "The manifest has choices, which are compared, and the answers are to be written by a schema.",
            "Leave out the schema or the choices.",
        )
    if not answers.schema and any(item.fields for item in items):
        notices.note("The manifest has true fields, and only answers by a schema (--json-schema) have fields.")
    sizes = model.choose(notices)
    from sfvqa.batch.item import group_items
    from sfvqa.batch.plan import BatchModel
    from sfvqa.inference.question import check_looks

    if answers.evidence:
        check_looks(sizes.name, sizes.sizes.hybrid_layers)

    kept = cache.open()
    items = _in_windows(items, frames, work, kept, notices)
    asked = BatchModel(
        settings=model.settings(sizes.name if model.model is None else model.model),
        fewer_frames=frames.fewer_if_short,
        num_text_tokens=num_question_tokens(item.question for item in items) + answers.num_prompt_tokens,
        batch_size=work.batch_size.number,
        num_questions=len(items),
        num_videos=len(group_items(items)),
    )
    options = _batch_options(asked, sizes, work, frames, answers, kept)
    if cluster is not None:
        from sfvqa.batch.cluster.worker import ModelLoader
        from sfvqa.checkpoints.find import find

        found, there = find(asked.settings.name), asked
        if isinstance(found, Path):  # workers are in other folders
            there = replace(asked, settings=replace(asked.settings, name=str(found.absolute())))
        loader = ModelLoader(there, str(options.settings["weights"]), cache.open, work.readers)
        return PlannedBatch(items, asked, options, kept, None, cluster, loader)
    plan, options = asked.plan(options)
    return PlannedBatch(items, asked, options, kept, plan)


def _batch_options(
    asked: "BatchModel",
    sizes: "ModelSizes",
    work: WorkOptions,
    frames: FrameOptions,
    answers: TurnOptions,
    cache: "VideoCache | None",
) -> "BatchOptions":
    """How the batch runs, as far as that needs no plan."""
    from sfvqa.batch.plan import BatchOptions, default_num_readers
    from sfvqa.video.readers.local_file import hash_content

    return BatchOptions(
        settings=_requested_settings(asked, sizes, frames, answers),
        sampling=frames.resolve(sizes.trained_with.sampling),
        crop=frames.crop_mode(),
        reading=frames.read_options(),
        generation=answers.generation(),
        prompt=answers.fixed_prompt,
        choices=answers.compared,
        reads_subtitles=answers.reads_text_track,
        speech=answers.speech_options,
        subtitle_tokens=answers.subtitle_tokens,
        num_readers=work.readers or default_num_readers(),
        frames_ahead=work.frames_ahead,
        item_timeout_seconds=work.item_timeout,
        max_failures=work.max_failures,
        retry_errors=work.retry_errors,
        content_of=hash_content if cache is None else cache.content_of,
    )


_IN_THE_ID = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed")


def _requested_settings(
    asked: "BatchModel", sizes: "ModelSizes", frames: FrameOptions, answers: TurnOptions
) -> dict[str, object]:
    """What was asked for, as far as it can change an answer: `auto` stays auto, whatever it came to this time."""
    from sfvqa.checkpoints.find import find, identify_model

    model, prompt = asked.settings, answers.fixed_prompt
    found = find(str(model.name))
    return {
        "model": found.absolute().name if isinstance(found, Path) else str(model.name),
        "weights": identify_model(model.name, random_weights=model.random_weights, adapter=model.adapter),
        "quantization": model.quantization,
        "dtype": model.dtype,
        "attention": model.attention,
        "sampling": asdict(frames.resolve(sizes.trained_with.sampling)),
        "fewer_frames_if_short": frames.fewer_if_short,
        "crop": (frames.crop_mode() or sizes.trained_with.crop).value,
        "reader": frames.read_options().reader.value,
        **{name: value for name, value in asdict(answers.generation()).items() if name in _IN_THE_ID},
        "static_decode": answers.static_decode == "on",  # with auto, ids are those of before it
        "slow_attention": answers.slow_attention,
        "choices": answers.compared,
        "system": prompt.system,
        "template": prompt.template,
        "subtitles": "auto" if answers.reads_text_track else None,
        "subtitle_tokens": answers.subtitle_tokens,
        # Without these the ids are those of before there were any; the text of a schema has the order of its keys.
        **({"evidence": True} if answers.evidence else {}),
        **({"top_k": answers.top_k} if answers.top_k else {}),
        **({"stop": answers.stop} if answers.stop else {}),
        **({"json_schema": answers.schema.text} if answers.schema else {}),
        **({"speech": _heard_with(answers.speech_options)} if answers.speech_options else {}),
    }


def _heard_with(options: "SpeechOptions") -> dict[str, object]:
    """What transcripts depend on; a language that the model lacks is a UsageError now, not one of each item."""
    from sfvqa.inference.speech import Transcriber

    transcriber = Transcriber(options)
    transcriber.check_language()
    return transcriber.made_with
