"""What the user asks for: how many frames, spread how, from where; contradictions are found when it is built."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum

from sfvqa.errors import UsageError
from sfvqa.wording import plural

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_HIGHEST_FPS = 1_000_000
"""Far above any camera; beyond it the arithmetic would lose the ticks in rounding."""
_LATEST_SECONDS = 1e10
"""Three hundred years: beyond any video, and far below what a clock of milliseconds can show."""


class SamplingStrategy(StrEnum):
    """How frames are spread over the file or range; the last three are the published reference's own."""

    UNIFORM = "uniform"
    FPS = "fps"
    KEYFRAMES = "keyframes"
    SCENE = "scene"
    TIMESTAMPS = "timestamps"
    REFERENCE_DEMO = "reference-demo"
    REFERENCE_TRAINING = "reference-training"
    REFERENCE_EVALUATION = "reference-evaluation"

    @property
    def needs_number_alone(self) -> bool:
        """Whether the number of frames is all that must be known besides: no rate, no times."""
        return self not in (SamplingStrategy.FPS, SamplingStrategy.TIMESTAMPS)


@dataclass(frozen=True)
class SamplingOptions:
    """How many frames, spread how, from where.

    At most `num_frames` are taken (TIMESTAMPS alone takes one for every time). `fps` is the rate of FPS;
    `timestamps_seconds` are the times of TIMESTAMPS, in any order. All times are presentation seconds: the first frame
    is at 0, whatever time the container gives it. `start_seconds` and `end_seconds` are both included. Raises
    UsageError when built.
    """

    num_frames: int = 64
    strategy: SamplingStrategy = SamplingStrategy.UNIFORM
    fps: float | None = None
    timestamps_seconds: tuple[float, ...] | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise UsageError(f"{self.num_frames} frames were asked for.", "Ask for a whole number, at least one.")
        for name, seconds in (("start", self.start_seconds), ("end", self.end_seconds)):
            if seconds is not None:
                _check_time(f"The {name} of the range", seconds)
        if self.end_seconds is not None and self.end_seconds <= (self.start_seconds or 0.0):
            raise UsageError(
                f"The range ends at {format_time(self.end_seconds)}, not after its start at "
                f"{format_time(self.start_seconds or 0.0)}.",
                "Give a start that lies before the end.",
            )
        if self.strategy is not SamplingStrategy.FPS:
            if self.fps is not None:
                rate = f"{plural(self.fps, 'frame')} a second"
                raise UsageError(
                    f"A rate of {rate} was given, but frames are chosen by “{self.strategy}”.",
                    f"Choose by “{SamplingStrategy.FPS}”, or leave the rate out.",
                )
        elif self.fps is None:
            raise UsageError(
                f"To choose frames by “{self.strategy}” a rate is needed.", "Give it in frames a second, for example 2."
            )
        elif not 0 < self.fps <= _HIGHEST_FPS:
            raise UsageError(
                f"The rate is {plural(self.fps, 'frame')} a second.", f"Give one above 0 and up to {_HIGHEST_FPS:,}."
            )
        self._check_timestamps()

    def _check_timestamps(self) -> None:
        if self.strategy is not SamplingStrategy.TIMESTAMPS:
            if self.timestamps_seconds is not None:
                raise UsageError(
                    f"Times were given, but frames are chosen by “{self.strategy}”.",
                    f"Choose by “{SamplingStrategy.TIMESTAMPS}”, or leave the times out.",
                )
            return
        if not self.timestamps_seconds:
            raise UsageError(
                f"To choose frames by “{self.strategy}” at least one time is needed.",
                "Give times as seconds from the first frame, for example 90 or 1:30.",
            )
        start = self.start_seconds or 0.0
        end = math.inf if self.end_seconds is None else self.end_seconds
        for seconds in self.timestamps_seconds:
            _check_time("One of the times", seconds)
            if not start <= seconds <= end:
                until = "" if self.end_seconds is None else f" to {format_time(end)}"
                raise UsageError(
                    f"The time {format_time(seconds)} lies outside the range from {format_time(start)}{until}.",
                    "Leave the time out, or give a range that includes it.",
                )


def _check_time(what: str, seconds: float) -> None:
    if not 0 <= seconds < _LATEST_SECONDS:  # nor NaN
        raise UsageError(
            f"{what} is {seconds} seconds.", "Give times as seconds from the first frame, for example 90 or 1:30."
        )


# --- Times as people write them ---


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
