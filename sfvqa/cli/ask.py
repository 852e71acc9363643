"""`sfvqa ask`: answer questions about one video."""

import typer

from sfvqa.cli import answer_options, cache_options, frame_options, options, writing_options

HELP = """\b
[bold]Examples[/bold]
  sfvqa ask clip.mp4 "Which way does the circle move?"
  sfvqa ask clip.mp4 "What flashes?" "Describe the video."   (seen once)
  sfvqa ask clip.mp4 --questions questions.txt --json
  sfvqa ask talk.mp4 "What is on the slide?" --start 1:30 --end 0:02:15.5
  sfvqa ask clip.mp4 "Which digit is shown?" -q              (only the answer)
  sfvqa ask clip.mp4 "Which digit is shown?" --json | jq -r .answer
  sfvqa ask clip.mp4 "What happens?" --dry-run               (does it fit?)
  sfvqa ask clip.mp4 "Left (A) or right (B)?" --choices A,B  (compares them)
  sfvqa ask talk.mp4 "What is the talk about?" --subtitles talk.srt
  sfvqa ask clip.mp4 "What flashes?" --evidence-out strip.png
  sfvqa ask clip.mp4 -- "-5 or 5: which number is shown?"

Answer questions about a video, each argument one question.
Nothing is downloaded: the model is the one named, else the configured one,
else one on this machine that fits its memory, else the bundled one, tiny."""


def ask(
    context: typer.Context,
    video: options.Video,
    questions: options.Questions = None,
    question_file: options.QuestionFile = None,
    model: options.Model = None,  # noqa: ARG001  read from the context, with where it came from
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
    max_new_tokens: writing_options.MaxNewTokens = 256,
    temperature: writing_options.Temperature = 0.0,  # noqa: ARG001
    top_p: writing_options.TopP = 1.0,  # noqa: ARG001
    repetition_penalty: writing_options.RepetitionPenalty = 1.0,  # noqa: ARG001
    seed: writing_options.Seed = 0,  # noqa: ARG001
    static_decode: writing_options.StaticDecode = False,  # noqa: ARG001
    slow_attention: writing_options.SlowAttentionOption = "always",  # noqa: ARG001
    batch_size: options.QuestionsAtOnce = "1",  # type: ignore[assignment]  # as it would be typed
    choices: answer_options.Choices = None,  # noqa: ARG001
    system: answer_options.System = None,  # noqa: ARG001
    template: answer_options.Template = None,  # noqa: ARG001
    subtitles: answer_options.SubtitlesOption = None,  # noqa: ARG001
    subtitle_tokens: answer_options.SubtitleTokens = None,  # noqa: ARG001
    evidence: answer_options.Evidence = False,  # noqa: ARG001
    evidence_out: answer_options.EvidenceOut = None,
    device: options.Device = "auto",  # noqa: ARG001
    dtype: options.DtypeOption = "auto",  # noqa: ARG001
    attention: options.AttentionOption = "sdpa",  # noqa: ARG001
    quant: options.QuantOption = "auto",  # noqa: ARG001
    random_weights: options.RandomWeights = False,  # noqa: ARG001
    no_cache: cache_options.NoCache = False,  # noqa: ARG001
    cache_size: cache_options.CacheSize = cache_options.DEFAULT_SIZE,  # noqa: ARG001
    full_hash: cache_options.FullHash = False,  # noqa: ARG001
    dry_run: options.DryRun = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check everything that can be checked, load, look, answer."""
    from sfvqa.cli import answers, filmstrip, planning, render, session, video_file
    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.dry_run import show_plan
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.question_file import gather_questions

    frame_request, model_request = FrameRequest.of(context), session.ModelRequest.of(context)
    asked = gather_questions(questions, question_file, video=video)
    session.check_request(video, asked, model_request, needs_weights=not dry_run)
    strips = filmstrip.filmstrip_paths(evidence_out, len(asked), keep=video)
    request, notices = AnswerRequest.of(context), render.Notices(quiet=quiet)
    with video_file.video_file(video, frame_request, cache_options.video_cache(context), notices) as file:
        prompt = request.prompt(file)
        planned = planning.plan_run(
            model_request, frame_request, file, asked, max_new_tokens, notices, prompt.num_tokens_about, batch_size
        )
        if dry_run:
            raise typer.Exit(show_plan(planned, video, file.reader, notices, json=json))
        planning.check_fit(planned, model_request.quantization, notices)
        answerer = session.load_model(planned.model, file.cache, notices)
        encoded = session.encode_video(answerer, file, planned.frames, notices).lying_at(video)
        file.close()
        printer = answers.make_printer(notices, json=json, quiet=quiet, num_questions=len(asked))
        said = session.answer_questions(answerer, encoded, asked, request, prompt, printer, notices, batch_size)
        filmstrip.draw_filmstrips(file, encoded, said, strips, notices)
    notices.timings(said)
