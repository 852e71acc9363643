"""`sfvqa ask --window`: one window of the video after the other, each with all questions; and answers as captions."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.cli.answers import PrintWhole, answer_questions, print_as_json
from sfvqa.cli.frame_options import WindowedFrameOptions
from sfvqa.cli.screen import print_json, printable
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
    from sfvqa.video.subtitles import SubtitleLine
    from sfvqa.video.windows import Window, WindowOptions


def windows_of(
    frames: WindowedFrameOptions, answers: "AskOptions", questions: Sequence[str], *, json: bool
) -> "WindowOptions | None":
    """The windows that are asked for, None for none. UsageError."""
    windows = frames.windows()
    if answers.format and not windows:
        raise UsageError("Captions have the times of windows.", "Add --window with their length, or scenes.")
    if answers.format and len(questions) > 1:
        raise UsageError("A caption is the answer to one question.", "Ask one at a time, or use --json.")
    if answers.format and json:
        raise UsageError("--json prints an object an answer, and --format captions.", "Leave one of them out.")
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
    print_whole = print_as_json if json else _printing_captions(answers.format) if answers.format else None
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
            model,
            seen.lying_at(file.given),
            questions,
            answers,
            prompt,
            notices,
            print_whole=print_whole,
            batch_size=batch_size,
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


def _printing_captions(format: str) -> PrintWhole:
    from sfvqa.video.captions import CaptionFormat, CaptionWriter

    captions = CaptionWriter(sys.stdout, CaptionFormat(format))
    return lambda answer: captions.write(caption_of(answer.to_dict()))


def caption_of(answer: Mapping[str, Any]) -> "SubtitleLine":
    """The text of an answer as JSON has it, or of its record, with the times of its window, or of what was seen."""
    from sfvqa.video.subtitles import SubtitleLine

    times = answer["frames"]["timestamps_seconds"]
    shown = answer["window"] or {"start_seconds": times[0], "end_seconds": times[-1]}
    return SubtitleLine(shown["start_seconds"], shown["end_seconds"], printable(answer["answer"].strip()))
