"""The options that say which frames are looked at and how they are read, shared by `ask` and `frames`."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from sfvqa.cli.options import check_positive
from sfvqa.registry.spec import CropName, SamplingName

# The names of an enum, written out because importing it would import numpy; a test compares.
Reader = Literal["auto", "pyav", "opencv", "pillow"]

_FRAMES = "Which frames"


def _parse_time(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`."""
    from sfvqa.errors import UsageError
    from sfvqa.video.sampling import parse_time

    try:
        return parse_time(text)
    except UsageError as error:  # typer knows which option, variable or line of the config file it is about
        raise typer.BadParameter(str(error)) from error


class Times(tuple[float, ...]):
    """Seconds; a type of its own, because typer takes a bare tuple for several values."""

    __slots__ = ()


def _parse_times(text: str) -> Times:
    """Seconds of `5,1:30,0:01:30.5`; an empty part is a mistake."""
    return Times(_parse_time(part) for part in text.split(","))


def _check_rate(value: float | None) -> float | None:
    return value if value is None else check_positive(value)


@dataclass(frozen=True)
class FrameCount:
    """How many frames; None is `auto`."""

    count: int | None


def parse_frames(text: str) -> FrameCount:
    """How many frames `text` means; typer.BadParameter where it means none."""
    if text == "auto":
        return FrameCount(None)
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is no number of frames; use 1 or more, or auto.")
    return FrameCount(int(text))


Frames = Annotated[
    FrameCount | None,
    typer.Option(
        parser=parse_frames,
        metavar="N|auto",
        envvar="SFVQA_FRAMES",
        help="How many frames to look at (default: as many as the model was trained with; auto: fewer if memory is "
        "short).",
        rich_help_panel=_FRAMES,
    ),
]
SamplingOption = Annotated[
    SamplingName | None,
    typer.Option(
        "--sampling",
        metavar="NAME",
        envvar="SFVQA_SAMPLING",
        help="How they are chosen: uniform, fps, keyframes, scene, timestamps, reference-demo, reference-training or "
        "reference-evaluation (default: as in training).",
        rich_help_panel=_FRAMES,
    ),
]
Fps = Annotated[
    float | None,
    typer.Option(
        metavar="X",
        envvar="SFVQA_FPS",
        callback=_check_rate,
        help="Frames a second, up to --frames of them; means --sampling fps.",
        rich_help_panel=_FRAMES,
    ),
]
Timestamps = Annotated[
    Times | None,
    typer.Option(
        parser=_parse_times,
        metavar="T,T,…",
        envvar="SFVQA_TIMESTAMPS",
        help="The frames shown at these times, such as 5,1:30; means --sampling timestamps.",
        rich_help_panel=_FRAMES,
    ),
]
Start = Annotated[
    float | None,
    typer.Option(
        parser=_parse_time,
        metavar="TIME",
        envvar="SFVQA_START",
        help="Look from here on: 90, 1:30 or 0:01:30.5.",
        rich_help_panel=_FRAMES,
    ),
]
End = Annotated[
    float | None,
    typer.Option(
        parser=_parse_time, metavar="TIME", envvar="SFVQA_END", help="Look up to here.", rich_help_panel=_FRAMES
    ),
]
CropOption = Annotated[
    CropName | None,
    typer.Option(
        "--crop",
        metavar="NAME",
        envvar="SFVQA_CROP",
        help="How a picture becomes square: center cuts, pad adds bars, squash distorts (default: as in training).",
        rich_help_panel=_FRAMES,
    ),
]
ReaderOption = Annotated[
    Reader,
    typer.Option(
        "--reader",
        metavar="NAME",
        envvar="SFVQA_READER",
        help="What reads the file: auto, pyav, opencv or pillow.",
        rich_help_panel=_FRAMES,
    ),
]
ReadThreads = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        envvar="SFVQA_READ_THREADS",
        min=1,
        help="How many threads read (default: one a core).",
        rich_help_panel=_FRAMES,
    ),
]
ReadTimeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        envvar="SFVQA_READ_TIMEOUT",
        callback=check_positive,
        help="Give up when reading takes longer.",
        rich_help_panel=_FRAMES,
    ),
]
