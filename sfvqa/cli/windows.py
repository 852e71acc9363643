"""`sfvqa ask --window`: one window of the video after the other, each with all questions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.answers import answer_questions
from sfvqa.cli.frame_options import WindowedFrameOptions
from sfvqa.cli.screen import print_json
from sfvqa.errors import ExitCode, UsageError, VideoError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.cli.ask import AskOptions
    from sfvqa.cli.screen import Notices
    from sfvqa.cli.video import VideoFile
    from sfvqa.inference.answer import Answer
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.video.sampling import SamplingOptions
    from sfvqa.video.windows import Window, WindowOptions


def windows_of(frames: WindowedFrameOptions, answers: "AskOptions") -> "WindowOptions | None":
    """The windows that are asked for, None for none. UsageError."""
    windows = frames.windows()
    if windows and answers.evidence_out:
        raise UsageError("The evidence is drawn of one part of the video.", "Leave out --window or --evidence-out.")
    return windows


def lay_out(
    windows: "WindowOptions", file: "VideoFile", sampling: "SamplingOptions", notices: "Notices"
) -> "tuple[Window, ...]":
    """The windows of the video. Raises VideoError."""
    from sfvqa.video.windows import plan_windows

    with notices.waiting("Looking for windows"):
        planned = plan_windows(file.reader, windows, sampling)
    notices.hint(f"{plural(len(planned), 'window')}, the first {planned[0]}.")
    return planned


def answer_windows(
    model: "VideoQA",
    file: "VideoFile",
    planned: "Sequence[Window]",
    sampling: "SamplingOptions",
    questions: Sequence[str],
    answers: "AskOptions",
    prompt: "PromptOptions",
    notices: "Notices",
    *,
    json: bool,
) -> ExitCode:
    """Answer every question about each window as it comes; one that cannot be seen is told of, and passed.

    The exit code says whether all could be seen.
    """
    windows = model.windows(
        file.reader, planned, sampling, reading=file.frames.read_options(), crop=file.frames.crop_mode()
    )
    said: list[Answer] = []
    code = ExitCode.OK
    for window in planned:
        with notices.waiting(f"Looking at {window}"):
            _, seen = next(windows)
        if isinstance(seen, VideoError):
            code = ExitCode.BATCH_FAILURES
            for question in questions if json else ():
                print_json(_failed(file.given, window, question, seen))
            notices.warn(f"{window}: {seen.with_flags}", again=True)
            continue
        for warning in seen.warnings:
            notices.warn(warning)
        batch_size = answers.batch_size.number or 1
        said += answer_questions(
            model, seen.lying_at(file.given), questions, answers, prompt, notices, json=json, batch_size=batch_size
        )
    notices.timings(said)
    return code


def _failed(video: Path, window: "Window", question: str, error: VideoError) -> dict[str, object]:
    """What stands in the place of an answer."""
    return {
        "video": str(video),
        "window": window.to_dict(),
        "question": question,
        "status": "error",
        "error": {"type": type(error).__name__, "message": error.with_flags},
    }
