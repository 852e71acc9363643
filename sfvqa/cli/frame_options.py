"""Which frames of a video are looked at, and how the file is read: options, and what they come to."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from sfvqa.cli.options import RARE, SETTING, Count, OptionGroup, check_positive, parse_count
from sfvqa.errors import UsageError
from sfvqa.registry import CropName, SamplingName

if TYPE_CHECKING:
    from sfvqa.video.fitting import CropMode
    from sfvqa.video.readers import ReadOptions
    from sfvqa.video.sampling import SamplingOptions
    from sfvqa.video.windows import WindowOptions


# The names of an enum, written out because importing it would import numpy; a test compares.
Reader = Literal["auto", "pyav", "opencv", "pillow"]


def parse_time(text: str) -> float:
    """Seconds of `90`, `1:30` or `0:01:30.5`."""
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
    return Times(parse_time(part) for part in text.split(","))


Frames = Annotated[
    Count | None,
    typer.Option(
        parser=parse_count,
        metavar="N|auto",
        envvar="SFVQA_FRAMES",
        help="How many frames to look at (default: as many as in the model's training; auto: fewer if memory is "
        "short).",
        rich_help_panel="Which frames",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ReadingOptions(OptionGroup):
    """How frames are read and made square. Raises UsageError when built."""

    panel = "How the video is read"

    crop: Annotated[
        CropName | None,
        typer.Option(
            "--crop",
            metavar="NAME",
            help="How a frame is made square: center crops, pad adds bars, squash distorts (default: as in training).",
        ),
        SETTING,
        RARE,
    ] = None
    reader: Annotated[
        Reader,
        typer.Option(metavar="NAME", help="Which library reads the file: auto, pyav, opencv or pillow."),
        SETTING,
        RARE,
    ] = "auto"
    read_threads: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Threads to read with (default: one per core)."),
        SETTING,
        RARE,
    ] = None
    read_timeout: Annotated[
        float,
        typer.Option(metavar="SECONDS", callback=check_positive, help="Give up if reading takes longer than this."),
        SETTING,
        RARE,
    ] = 600.0

    def __post_init__(self) -> None:
        self.read_options()  # for its checks

    def crop_mode(self) -> "CropMode | None":
        """How frames become square, None where that is left to the model."""
        from sfvqa.video.fitting import CropMode

        return None if self.crop is None else CropMode(self.crop)

    def read_options(self) -> "ReadOptions":
        """How the file is read."""
        from sfvqa.video.readers import ReaderName, ReadOptions

        return ReadOptions(ReaderName(self.reader), num_threads=self.read_threads, timeout_seconds=self.read_timeout)


_ALTERNATIVES = (("sampling", "fps"), ("sampling", "timestamps"), ("fps", "timestamps"), ("frames", "timestamps"))
"""Options that may contradict each other."""


@dataclass(frozen=True, kw_only=True)
class FrameOptions(ReadingOptions):
    """Which frames are taken, None leaves it to the model, and how they are read. Raises UsageError when built.

    Of two options that contradict each other the stronger one holds: a flag, its variable, the config file.
    """

    panel = "Which frames"

    frames: Frames = None
    sampling: Annotated[
        SamplingName | None,
        typer.Option(
            metavar="NAME",
            help=f"How frames are chosen: {', '.join(get_args(SamplingName))} (default: as in training).",
        ),
        SETTING,
        RARE,
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            callback=check_positive,
            help="Frames per second, up to --frames in all; implies --sampling fps.",
        ),
        SETTING,
        RARE,
    ] = None
    timestamps: Annotated[
        Times | None,
        typer.Option(
            parser=_parse_times,
            metavar="T,T,…",
            help="Take the frames shown at these times, such as 5,1:30; implies --sampling timestamps.",
        ),
        SETTING,
        RARE,
    ] = None
    start: Annotated[
        float | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Start here: 90, 1:30 or 0:01:30.5."),
        SETTING,
    ] = None
    end: Annotated[float | None, typer.Option(parser=parse_time, metavar="TIME", help="Stop here."), SETTING] = None

    def __post_init__(self) -> None:
        from sfvqa.video.sampling import SamplingOptions

        super().__post_init__()
        for first, second in _ALTERNATIVES:
            one, other = getattr(self, first), getattr(self, second)
            if one is not None and other is not None and one != second:  # `--sampling fps --fps 2` is no contradiction
                if self.source(first) is self.source(second):
                    raise self._contradiction(first, second)
                self.overrule(min(first, second, key=self.source))
        self.resolve(SamplingOptions())  # for its checks: what is wrong must be said before a model is loaded

    def windows(self) -> "WindowOptions | None":
        """The windows to ask about, None for the whole range at once."""
        return None

    @property
    def num_frames(self) -> int | None:
        """How many frames are asked for, None where that is left to the model or the memory."""
        return None if self.frames is None else self.frames.number

    @property
    def fewer_if_short(self) -> bool:
        """Whether the frames may be fewer than in training where memory is short."""
        return self.frames is not None and self.frames.number is None

    def resolve(self, default: "SamplingOptions") -> "SamplingOptions":
        """The frames to take of any video, with the model's number and strategy where none is asked for."""
        from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

        return SamplingOptions(
            num_frames=self.num_frames or default.num_frames,
            strategy=SamplingStrategy.implied(self.sampling, self.fps, self.timestamps, default.strategy),
            fps=self.fps,
            timestamps_seconds=self.timestamps,
            start_seconds=self.start,
            end_seconds=self.end,
        )

    def _contradiction(self, first: str, second: str) -> UsageError:
        if first == "sampling":
            wrong = f"--{second} goes with --sampling {second}, not with --sampling {self.sampling}."
        elif first == "frames":
            wrong = "--timestamps says which frames are wanted, --frames how many."
        else:
            wrong = f"--{first} and --{second} are two ways of choosing frames."
        return UsageError(wrong, "Leave one of them out.")


@dataclass(frozen=True, kw_only=True)
class WindowedFrameOptions(FrameOptions):
    """Frames of one window of the video after the other, where there is a `window`. Raises UsageError when built."""

    window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|scenes",
            help="Ask about each window of this length, such as 30s or 1:30, or about each scene.",
        ),
    ] = None
    overlap: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Begin each window this long before the end of the one before."),
        RARE,
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.overlap is not None and self.window is None:
            raise UsageError("--overlap is that of windows.", "Add --window with their length, or leave it out.")
        self.windows()  # for its checks

    def windows(self) -> "WindowOptions | None":
        """The windows to ask about, None for the whole range at once."""
        if self.window is None:
            return None
        from sfvqa.video.sampling import SamplingOptions
        from sfvqa.video.windows import WindowOptions

        windows = WindowOptions.parse(self.window, self.overlap)
        windows.check(self.resolve(SamplingOptions()))
        return windows
