"""Which frames of a video to look at: pure arithmetic over a table of times, no file is opened here."""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sfvqa.errors import RangeOutsideVideoError, UsageError


class SamplingStrategy(StrEnum):
    """How frames are spread over the file or range."""

    UNIFORM = "uniform"


@dataclass(frozen=True)
class SamplingOptions:
    """How many frames, from where.

    `start_seconds` and `end_seconds` are presentation seconds as a player shows them: the first frame of the video is
    at 0, whatever time the container gives it. Both ends are included. Raises UsageError when built.
    """

    num_frames: int = 64
    strategy: SamplingStrategy = SamplingStrategy.UNIFORM
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise UsageError(f"{self.num_frames} frames were asked for.", "Ask for at least one frame.")
        for name, seconds in (("start", self.start_seconds), ("end", self.end_seconds)):
            if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
                raise UsageError(
                    f"The {name} of the range is {seconds} seconds.",
                    "Give times as seconds from the first frame, for example 90 or 1:30.",
                )
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise UsageError(
                f"The range ends at {format_time(self.end_seconds)}, not after its start at "
                f"{format_time(self.start_seconds or 0.0)}.",
                "Give a start that lies before the end.",
            )


def choose_indices(timestamps_seconds: Sequence[float], options: SamplingOptions) -> list[int]:
    """Choose the frames to read: sorted, unique, `options.num_frames` of them or all in the range if it has fewer.

    timestamps_seconds: when each frame of the video is shown, increasing, seconds from the first frame.
    A frame is in the range if it is first shown in it. Frames are spread evenly by their place in the file, not by the
    clock: at constant rate that is the same, and at variable rate a still stretch is not asked for more frames than it
    has. The first and the last frame in the range are always taken (one frame alone: the one in the middle).
    Raises RangeOutsideVideoError when the range holds no frame.

    >>> choose_indices([0.0, 0.5, 1.0, 1.5, 2.0], SamplingOptions(num_frames=3))
    [0, 2, 4]
    """
    start = 0 if options.start_seconds is None else bisect_left(timestamps_seconds, options.start_seconds)
    stop = (
        len(timestamps_seconds)
        if options.end_seconds is None
        else bisect_right(timestamps_seconds, options.end_seconds)
    )
    if stop <= start:
        raise _no_frame_in_range(timestamps_seconds, options)
    return [start + offset for offset in _spread(stop - start, options.num_frames)]


def _spread(available: int, wanted: int) -> list[int]:
    """`wanted` numbers from 0 to `available` - 1, both included, as even as whole numbers allow (halves round up)."""
    if wanted >= available:
        return list(range(available))
    if wanted == 1:
        return [(available - 1) // 2]
    steps = wanted - 1
    return [(2 * place * (available - 1) + steps) // (2 * steps) for place in range(wanted)]


def _no_frame_in_range(timestamps_seconds: Sequence[float], options: SamplingOptions) -> RangeOutsideVideoError:
    if not timestamps_seconds:
        return RangeOutsideVideoError("The video holds no frame.", "Check that the file plays.")
    start, last = options.start_seconds or 0.0, timestamps_seconds[-1]
    asked = f"from {format_time(start)}"
    if options.end_seconds is not None:
        asked += f" to {format_time(options.end_seconds)}"
    if start > last:
        return RangeOutsideVideoError(
            f"The range {asked} lies beyond the last frame of the video, at {format_time(last)}.",
            f"Choose a start between 0:00 and {format_time(last)}.",
        )
    return RangeOutsideVideoError(
        f"No frame begins in the range {asked}: it lies between two frames.", "Choose a longer range."
    )


_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def parse_time(text: str) -> float:
    """Read a time such as `90`, `1:30` or `0:01:30.5` as seconds; anything else is a UsageError.

    >>> parse_time("0:01:30.5")
    90.5
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"“{text}” is not a time.", "Write times as 90, 1:30 or 0:01:30.5.")
    hours, minutes, seconds = match["hours"], match["minutes"], float(match["seconds"])
    if minutes is not None and (seconds >= 60 or (hours is not None and int(minutes) >= 60)):
        raise UsageError(f"“{text}” is not a time: what follows a colon is below 60.", "Write 1:30 or 0:01:30.5.")
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def format_time(seconds: float) -> str:
    """Print seconds as `m:ss` or `h:mm:ss`, with as many of three decimals as are needed; parse_time reads it back.

    >>> format_time(90.5)
    '1:30.5'
    """
    milliseconds = round(seconds * 1000)
    whole, fraction = divmod(milliseconds, 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return clock + f".{fraction:03d}".rstrip("0") if fraction else clock
