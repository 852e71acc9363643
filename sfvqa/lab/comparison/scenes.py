"""Scenes of the benchmark: what happens in a video, in continuous time, and how it is drawn. Asks nothing.

Places are fractions of the frame (x to the right, y down), times are seconds from the start of the video.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.errors import UsageError
from sfvqa.lab.tiny.scenes import (
    FLASH_COLOURS,
    STEPS,
    Colour,
    Direction,
    Pattern,
    Shape,
    random_camera,
    random_shots,
    rounded,
    rounded_pair,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sfvqa.lab.tiny.scenes import Camera, Shot

    Place = tuple[float, float]


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


MAX_MOVERS = 4
PLATE_RADIUS = 0.15
MARGIN = 0.05  # between things and the border: the camera's reach and the white frame fit in
APART = 0.02
# Of Timeline.num_moments = 128; in proportion elsewhere.
PLATE_MOMENTS, PULSE_MOMENTS = 2, 3
QUIET_MOMENTS = 3  # between any two short events
TRIES = 40


def random_scene(rng: np.random.Generator, timeline: Timeline | None = None) -> BenchmarkScene:
    """Draw a scene; the number of objects, directions, colours and all that is asked about are equally likely."""
    timeline = timeline or Timeline()
    count = int(rng.integers(1, MAX_MOVERS + 1))
    movers = _movers(rng, timeline, count)
    while len(movers) < count:  # a full frame would make small numbers likelier
        movers = _movers(rng, timeline, count)
    events = _Events(rng, timeline)
    flash = events.draw(1) if rng.random() < 0.6 else None
    bursts = _digits(rng, events, movers)
    for sign, choices in ((Sign.LETTER, LETTERS), (Sign.RING, SIDES)):
        if rng.random() < 0.6:
            bursts += _burst(rng, events, movers, sign, _shuffled(rng, choices))
    pulses = _pulses(rng, events) if rng.random() < 0.6 else ()
    return BenchmarkScene(
        timeline=timeline,
        movers=tuple(movers),
        pattern=Pattern(_pick(rng, list(Pattern))),
        shots=random_shots(rng, timeline.duration_seconds),
        camera=random_camera(rng, timeline.duration_seconds),
        bursts=tuple(bursts),
        flash=Flash(Colour(_pick(rng, FLASH_COLOURS)), flash) if flash else None,
        pulses=pulses,
    )


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _shuffled(rng: np.random.Generator, choices: Sequence[str]) -> list[str]:
    return [choices[int(number)] for number in rng.permutation(len(choices))]


class _Events:
    """Hands out times for short events that no two share."""

    def __init__(self, rng: np.random.Generator, timeline: Timeline) -> None:
        self._rng = rng
        self.timeline = timeline
        self._taken: list[Span] = []

    def scaled(self, moments: int) -> int:
        """As many moments as `moments` are of the 128 of a usual timeline, one at least."""
        return max(1, round(moments * self.timeline.num_moments / 128))

    def draw(self, length: int, within: Span | None = None) -> Span | None:
        """A span that shows `length` moments; None when there is no room for it."""
        step = self.timeline.step_seconds
        within = within or Span(0.0, self.timeline.duration_seconds + step)
        first, last = int(np.ceil(within.start / step)), int(within.end / step) - length
        for _ in range(TRIES if last >= first else 0):
            start = int(self._rng.integers(first, last + 1))
            span = Span(rounded((start - 0.5) * step), rounded((start + length - 0.5) * step))
            if all(span.is_apart_from(other, (QUIET_MOMENTS - 0.1) * step) for other in self._taken):
                self._taken.append(span)
                return span
        return None


def _movers(rng: np.random.Generator, timeline: Timeline, count: int) -> list[Mover]:
    """Up to `count` objects whose ways do not cross; all are there from the start, or they appear one by one."""
    appear = np.zeros(count)
    if rng.random() < 0.5:
        appear = np.sort(rng.uniform(0.0, 0.6, size=count))
        appear = rng.permutation(np.maximum(appear - appear[0], 0.15 * np.arange(count)))
    colours = rng.permutation(np.array(OBJECT_COLOURS))[:count]
    shapes = rng.permutation(np.array(list(Shape)))[:count]
    movers: list[Mover] = []
    for shape, colour, at in zip(shapes, colours, appear * timeline.duration_seconds, strict=True):
        mover = _mover(rng, timeline, movers, Shape(shape), Colour(colour), rounded(at))
        if mover is not None:
            movers.append(mover)
    return movers


def _mover(
    rng: np.random.Generator, timeline: Timeline, others: list[Mover], shape: Shape, colour: Colour, appears_at: float
) -> Mover | None:
    """A way inside the frame that keeps clear of `others` at all times; None when none was found."""
    times = np.linspace(0.0, timeline.duration_seconds, 48)
    paths = [(other.positions(times), other.radius) for other in others]
    for _ in range(TRIES):
        direction = Direction(_pick(rng, SIDES))
        radius = rounded(rng.uniform(0.085, 0.115))
        low, high = radius + MARGIN, 1 - radius - MARGIN
        way = np.asarray(STEPS[direction]) * rng.uniform(0.42, 0.62)
        start = rng.uniform(np.maximum(low, low - way), np.minimum(high, high - way))
        left = timeline.duration_seconds - appears_at
        length = (rng.uniform(0.14, 0.24) if rng.random() < 0.5 else rng.uniform(0.5, 0.75)) * timeline.duration_seconds
        length = min(length, 0.95 * left)
        begins = appears_at + rng.uniform(0.03 * left, left - length)
        moving = Span(rounded(begins), rounded(begins + length))
        mover = Mover(
            shape, colour, radius, direction, rounded_pair(start), rounded_pair(start + way), appears_at, moving
        )
        path = mover.positions(times)
        if all(np.hypot(*(path - other).T).min() > radius + far + APART for other, far in paths):
            return mover
    return None


def halves(mover: Mover, timeline: Timeline) -> tuple[Span, Span] | None:
    """When a mover rests at one end and when at the other, if those are clearly the top and the bottom."""
    low, high = sorted((mover.start[1], mover.end[1]))
    if mover.direction not in (Direction.UP, Direction.DOWN) or low > 0.4 or high < 0.6:
        return None
    before = Span(mover.appears_at, mover.moving.start)
    after = Span(mover.moving.end, timeline.duration_seconds)
    return before, after


def _digits(rng: np.random.Generator, events: _Events, movers: list[Mover]) -> list[Burst]:
    """Two bursts, one while an object is at the top and one while it is at the bottom; or one; or none."""
    chance = rng.random()
    if chance < 0.15:
        return []
    resting = [both for mover in movers if (both := halves(mover, events.timeline)) is not None]
    digits = _shuffled(rng, DIGITS)
    if not resting or chance > 0.75:
        return _burst(rng, events, movers, Sign.DIGIT, digits)
    first, second = resting[0]
    return _burst(rng, events, movers, Sign.DIGIT, digits[:4], first) + _burst(
        rng, events, movers, Sign.DIGIT, digits[4:], second
    )


def _burst(
    rng: np.random.Generator,
    events: _Events,
    movers: list[Mover],
    sign: Sign,
    texts: Sequence[str],
    within: Span | None = None,
) -> list[Burst]:
    """A plate of every colour with the first of `texts`; none where there is no time or place for them."""
    moments = events.scaled(PLATE_MOMENTS)
    span = events.draw(moments * len(PLATE_COLOURS), within)
    centre = None if span is None else _free_place(rng, movers, span, PLATE_RADIUS)
    if span is None or centre is None:
        return []
    length = moments * events.timeline.step_seconds
    starts = [rounded(span.start + number * length) for number in range(len(PLATE_COLOURS))]
    plates = [
        Plate(Colour(colour), text, Span(start, end))
        for colour, text, start, end in zip(
            _shuffled(rng, PLATE_COLOURS), texts[: len(PLATE_COLOURS)], starts, [*starts[1:], span.end], strict=True
        )
    ]
    return [Burst(sign, centre, PLATE_RADIUS, tuple(plates))]


def _free_place(rng: np.random.Generator, movers: list[Mover], span: Span, radius: float) -> Place | None:
    """A place that no mover comes near during `span`."""
    times = np.linspace(span.start, span.end, 16)
    low = radius + MARGIN
    for _ in range(TRIES):
        centre = np.asarray(rounded_pair(rng.uniform(low, 1 - low, size=2)))
        near = (np.hypot(*(mover.positions(times) - centre).T).min() - mover.radius for mover in movers)
        if all(distance > radius + APART for distance in near):
            return rounded_pair(centre)
    return None


def _pulses(rng: np.random.Generator, events: _Events) -> tuple[Span, ...]:
    """One to four times at which the white frame lights up, none when they do not all fit."""
    count = int(rng.integers(1, 5))
    spans = [events.draw(events.scaled(PULSE_MOMENTS)) for _ in range(count)]
    found = [span for span in spans if span is not None]
    return tuple(sorted(found, key=lambda span: span.start)) if len(found) == count else ()
