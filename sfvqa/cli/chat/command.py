"""The command `sfvqa chat`: its options, and what is checked and loaded before the first question."""

from pathlib import Path
from typing import Annotated

import typer

from sfvqa.cli import answer_options, cache_options, frame_options, options, writing_options

HELP = """\b
[bold]Examples[/bold]
  sfvqa chat clip.mp4
  sfvqa chat talk.mp4 --subtitles talk.srt --start 1:30
  sfvqa chat clip.mp4 < questions.txt                        (one a line)
  printf 'What flashes?\\n/open b.mp4\\nAnd here?\\n' | sfvqa chat a.mp4 --json

Talk about a video: it is read once, and each question is understood in the
light of those before it. /help says what else can be typed, such as /frames,
/open VIDEO, /save FILE and /quit. Ctrl-C stops an answer, Ctrl-D leaves.
What was typed is remembered: SFVQA_HISTORY names the file, empty means none.
When standard input is no terminal, each of its lines is a question or a
command, and the exit code is that of the first that failed."""

Video = Annotated[
    Path,
    typer.Argument(
        parser=options.parse_video,
        metavar="VIDEO",
        help="A video file, or a folder of pictures.",
        show_default=False,
    ),
]
Context = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SFVQA_CONTEXT",
        min=1,
        help="Tokens the conversation may take, the fast tokens with it; the oldest turns are dropped when it is full "
        "(default: the model's positions).",
        show_default=False,
        rich_help_panel=options.GENERATION,
    ),
]


def chat(
    given: typer.Context,
    video: Video,
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
    context: Context = None,
    system: answer_options.System = None,  # noqa: ARG001
    template: answer_options.Template = None,  # noqa: ARG001
    subtitles: answer_options.SubtitlesOption = None,  # noqa: ARG001
    subtitle_tokens: answer_options.SubtitleTokens = None,  # noqa: ARG001
    device: options.Device = "auto",  # noqa: ARG001
    dtype: options.DtypeOption = "auto",  # noqa: ARG001
    attention: options.AttentionOption = "sdpa",  # noqa: ARG001
    quant: options.QuantOption = "auto",  # noqa: ARG001
    random_weights: options.RandomWeights = False,  # noqa: ARG001
    no_cache: cache_options.NoCache = False,  # noqa: ARG001
    cache_size: cache_options.CacheSize = cache_options.DEFAULT_SIZE,  # noqa: ARG001
    full_hash: cache_options.FullHash = False,  # noqa: ARG001
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check everything that can be checked, load, look, talk."""
    from sfvqa.cli import planning, session
    from sfvqa.cli.answer_request import AnswerRequest
    from sfvqa.cli.chat.conversation import Conversation
    from sfvqa.cli.chat.lines import check_standard_input, open_lines
    from sfvqa.cli.chat.loop import ChatLoop
    from sfvqa.cli.chat.opening import TOKENS_PLANNED_FOR, VideoOpener
    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.cli.video_file import VideoFile

    frame_request, model_request = FrameRequest.of(given), session.ModelRequest.of(given)
    check_standard_input(video)
    session.check_request(video, (), model_request)
    request, notices = AnswerRequest.of(given), Notices(quiet=quiet)
    with VideoFile(video, frame_request, cache_options.video_cache(given), notices) as file:
        prompt, to_come = request.prompt(file), max(max_new_tokens, context or TOKENS_PLANNED_FOR)
        planned = planning.plan_run(
            model_request, frame_request, file, [""], to_come, notices, prompt.num_tokens_about, batch_size=1
        )
        planning.check_fit(planned, model_request.quantization, notices)
        answerer = session.load_model(planned.model, file.cache, notices)
        opener = VideoOpener(answerer, planned.frames, request, context, file.cache, video, notices)
        begun = opener.start(file, prompt)
    lines = open_lines(notices)
    conversation = Conversation(opener, begun, notices, json=json, echoes_questions=not lines.is_terminal)
    raise typer.Exit(ChatLoop(conversation, lines, notices, json=json).run())
