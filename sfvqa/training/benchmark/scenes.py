"""What happens in a benchmark video, as values in continuous time. Draws no random numbers and no pixels, asks nothing.

Places are fractions of the frame (x to the right, y down), times are seconds from the start of the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.errors import UsageError
from sfvqa.training.scenes import Colour, Direction, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sfvqa.training.backdrop import Camera, Pattern, Shot

OBJECT_COLOURS = tuple(colour for colour in Colour if colour is not Colour.WHITE)  # what plates bear is white
PLATE_COLOURS = (Colour.RED, Colour.GREEN, Colour.BLUE, Colour.PURPLE)
SIDES = (Direction.LEFT, Direction.RIGHT, Direction.UP, Direction.DOWN)
LETTERS = "AEHLNTXY"
DIGITS = "0123456789"


@dataclass(frozen=True)
class Timeline:
    """How long a video lasts and how densely it can be asked about: a flash is seen in one of `num_moments` frames.

    >>> Timeline(10.0, 128).sampled(4).tolist()
    [0, 42, 85, 127]
    """

    duration_seconds: float = 10.0
    num_moments: int = 128

    def __post_init__(self) -> None:
        if self.num_moments < 16 or not 0 < self.duration_seconds < math.inf:
            raise UsageError(
                f"A video of {self.duration_seconds:g} s with {self.num_moments} moments has no room for its events.",
                "Ask for 16 moments or more, and some seconds.",
            )

    @property
    def step_seconds(self) -> float:
        """From one moment to the next."""
        return self.duration_seconds / (self.num_moments - 1)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """When each moment is, [num_moments]: the first at 0, the last at the end."""
        return np.linspace(0.0, self.duration_seconds, self.num_moments)

    def sampled(self, num_frames: int) -> NDArray[np.intp]:
        """The moments that `num_frames` evenly spaced frames show, both ends among them."""
        if not 1 <= num_frames <= self.num_moments:
            raise ValueError(f"{num_frames} frames of {self.num_moments} moments")
        return np.linspace(0, self.num_moments - 1, num_frames).round().astype(np.intp)


@dataclass(frozen=True)
class Span:
    """From `start` until before `end`, in seconds."""

    start: float
    end: float

    def holds(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of `times` lie in it."""
        return (times >= self.start) & (times < self.end)

    def lies_in(self, other: Span) -> bool:
        """Whether `other` holds all of it."""
        return other.start <= self.start and self.end <= other.end

    def is_apart_from(self, other: Span, seconds: float = 0.0) -> bool:
        """Whether at least `seconds` lie between the two."""
        return self.end + seconds <= other.start or other.end + seconds <= self.start


@dataclass(frozen=True)
class Mover:
    """A coloured shape that appears, moves evenly from `start` to `end` during `moving`, and stays to the end."""

    shape: Shape
    colour: Colour
    radius: float
    direction: Direction
    start: tuple[float, float]
    end: tuple[float, float]
    appears_at: float
    moving: Span

    def positions(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centre at `times` [T], as [T, 2] of (x, y), the camera left aside."""
        share = np.clip((times - self.moving.start) / (self.moving.end - self.moving.start), 0.0, 1.0)[:, None]
        return np.asarray(self.start) * (1 - share) + np.asarray(self.end) * share

    @property
    def speed(self) -> float:
        """Frame widths a second, while it moves."""
        way = abs(self.end[0] - self.start[0]) + abs(self.end[1] - self.start[1])
        return way / (self.moving.end - self.moving.start)


class Sign(StrEnum):
    """What the plates of a burst bear."""

    DIGIT = "digit"
    LETTER = "letter"
    RING = "ring"


@dataclass(frozen=True)
class Plate:
    """A disc of `colour`, visible during `span`; `text` is its digit or letter, or the side where its ring is open."""

    colour: Colour
    text: str
    span: Span


@dataclass(frozen=True)
class Burst:
    """Plates of different colours that follow each other at one place without a break.

    An average over a few frames still holds all that they bear, but not which of them bore what.
    """

    sign: Sign
    centre: tuple[float, float]
    radius: float  # of a plate
    plates: tuple[Plate, ...]

    @property
    def span(self) -> Span:
        """From the first plate to the last."""
        return Span(self.plates[0].span.start, self.plates[-1].span.end)


@dataclass(frozen=True)
class Flash:
    """The background turns `colour` during `span`, which one frame of the densest sampling shows."""

    colour: Colour
    span: Span


@dataclass(frozen=True)
class BenchmarkScene:
    """Everything a video shows. `pulses` are the times at which a white frame lights up around the picture."""

    timeline: Timeline
    movers: tuple[Mover, ...]
    pattern: Pattern
    shots: tuple[Shot, ...]
    camera: Camera
    bursts: tuple[Burst, ...] = ()
    flash: Flash | None = None
    pulses: tuple[Span, ...] = ()

    def __post_init__(self) -> None:
        shapes = [mover.shape for mover in self.movers]
        if len(set(shapes)) != len(shapes) or not shapes:
            raise ValueError(f"a scene needs objects of different shapes, got {shapes}")
        if self.shots[0].start != 0 or len(self.bursts_of(Sign.DIGIT)) > 2:
            raise ValueError("the first shot starts at 0, and digits are shown in at most two bursts")

    def bursts_of(self, sign: Sign) -> tuple[Burst, ...]:
        """Those whose plates bear such a thing."""
        return tuple(burst for burst in self.bursts if burst.sign is sign)

    @property
    def events(self) -> tuple[Span, ...]:
        """When something is shown that is not there all the time, objects left aside."""
        flashes = () if self.flash is None else (self.flash.span,)
        return (*(plate.span for burst in self.bursts for plate in burst.plates), *flashes, *self.pulses)

    def telling_moments(self, num_frames: int) -> NDArray[np.intp]:
        """Evenly spaced moments, of which the nearest to each event is moved to its middle: nothing is missed."""
        moments = self.timeline.sampled(num_frames)
        is_free = np.ones(num_frames, dtype=bool)
        for span in self.events:
            shown = np.flatnonzero(span.holds(self.timeline.seconds))
            middle = shown[len(shown) // 2]
            nearest = int(np.where(is_free, abs(moments - middle), self.timeline.num_moments).argmin())
            moments[nearest], is_free[nearest] = middle, False
        return np.sort(moments)
