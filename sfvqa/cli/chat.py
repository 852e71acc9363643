"""`sfvqa chat`: from a video to a conversation about it; the first video, and those that /open names."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.answer_options import TurnOptions
from sfvqa.cli.frame_options import FrameOptions
from sfvqa.cli.model import ModelOptions, seconds_on_cpu
from sfvqa.cli.options import CacheOptions, OutputOptions, parse_video, setting
from sfvqa.cli.warm import ServerUse, begin_chat, find_server
from sfvqa.errors import UsageError
from sfvqa.given_file import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfvqa.cli.screen import Notices
    from sfvqa.inference.chat import Chat
    from sfvqa.inference.question import PromptOptions
    from sfvqa.serve.client import ServedChat
    from sfvqa.video.sampling import SamplingOptions


TOKENS_PLANNED_FOR = 2048
"""How long a conversation is taken to be when memory is planned and --context does not say: a few dozen turns."""


HELP = """\b
[bold]Examples[/bold]
  sfvqa chat clip.mp4
  sfvqa chat talk.mp4 --subtitles talk.srt --start 1:30
  sfvqa chat clip.mp4 < questions.txt                        (one per line)
  printf 'What flashes?\\n/open b.mp4\\nAnd here?\\n' | sfvqa chat a.mp4 --json

Talk about a video. It is read once, and each question is understood in the
context of those before it. /help lists the commands, such as /frames, /open
VIDEO, /save FILE and /quit. Ctrl-C stops an answer, Ctrl-D leaves. What you
type is kept as history: SFVQA_HISTORY names the file, and an empty name
keeps none. If standard input is not a terminal, each of its lines is a
question or a command, and the exit code is that of the first that failed."""

Video = Annotated[
    Path,
    typer.Argument(
        parser=parse_video, metavar="VIDEO", help="A video file, or a folder of pictures.", show_default=False
    ),
]


@dataclass(frozen=True, kw_only=True)
class ChatOptions(TurnOptions):
    """How a chat answers."""

    context: Annotated[
        int | None,
        setting(
            "Tokens that the conversation may take, fast tokens included; when it is full, the oldest turns are "
            "dropped (default: all that the model has positions for).",
            min=1,
        ),
    ] = None


def chat(
    video: Video,
    *,
    model: ModelOptions,
    frames: FrameOptions,
    answers: ChatOptions,
    cache: CacheOptions,
    server: ServerUse,
    output: OutputOptions,
) -> None:
    """Check everything that can be checked, load, look, talk."""
    from sfvqa.cli.chat_lines import open_lines
    from sfvqa.cli.chat_loop import ChatLoop
    from sfvqa.cli.video import check_video

    if str(video) == STANDARD_INPUT:
        raise UsageError(
            "Standard input cannot be both the video and the questions.", "Save the video to a file and give its path."
        )
    if sys.stdin is None:
        raise UsageError("No question can be read: standard input is closed.", "Connect it to a terminal or a file.")
    check_video(video)
    model.check()
    answers.check(model)
    notices = output.notices()

    def prompt_of(path: Path) -> "PromptOptions":
        """What stands in every prompt about a video, but for its own text track."""
        prompt = answers.fixed_prompt
        if prompt.subtitles is None or _is_same_file(path, video):
            return prompt
        belong = f"The subtitles in {prompt.subtitles.source} belong to {video.name}"
        notices.warn(f"{belong}; this video has none.", again=True)
        return replace(prompt, subtitles=None, subtitle_tokens=None)

    warm = find_server(server, video, model, frames, answers, cache, notices)
    begun, open_other, sampling = begin_chat(warm, video, answers.context, prompt_of) or _begin_here(
        video, model, frames, answers, cache, prompt_of, notices
    )

    def open_checked(path: Path) -> "Chat | ServedChat":
        check_video(path)
        return open_other(path)

    lines, has_limit = open_lines(notices), answers.context is not None
    loop = ChatLoop(begun, open_checked, sampling, lines, notices, json=output.json, has_limit=has_limit)
    raise typer.Exit(loop.run())


def _begin_here(
    video: Path,
    model: ModelOptions,
    frames: FrameOptions,
    answers: ChatOptions,
    cache: CacheOptions,
    prompt_of: "Callable[[Path], PromptOptions]",
    notices: "Notices",
) -> "tuple[Chat, Callable[[Path], Chat], SamplingOptions]":
    """Load the model and begin a conversation, and how to begin one about another video."""
    from sfvqa.cli.model import check_fit, load
    from sfvqa.cli.video import VideoFile, encode_video, open_video, plan_question

    with open_video(video, frames, cache.open(video), notices) as file:
        prompt, to_come = (
            answers.prompt(file, notices),
            max(answers.max_new_tokens, answers.context or TOKENS_PLANNED_FOR),
        )
        plan, sampling = plan_question(
            model, frames, file, [""], prompt, notices, max_new_tokens=to_come, static_decode=answers.static_decode
        )
        check_fit(plan, seconds_on_cpu(plan, 1, is_seen=file.is_kept(sampling)), notices)
        answerer, store = load(plan.settings, file.cache, notices), file.cache

        def begin(file: VideoFile, prompt: "PromptOptions") -> "Chat":
            encoded = encode_video(answerer, file, plan, sampling, frames, notices)
            return answerer.chat(encoded, answers.generation(), prompt=prompt, context_tokens=answers.context)

        begun = begin(file, prompt)

    def open_other(path: Path) -> "Chat":
        with VideoFile(path, frames, store, notices) as file:
            return begin(file, answers.prompt(file, notices) if answers.depends_on_video else prompt_of(path))

    return begun, open_other, sampling


def _is_same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:  # the first video may be gone by now
        return False
