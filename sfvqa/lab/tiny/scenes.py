"""Scenes of tiny's world: moving shapes, a flash, a digit, and a backdrop that drifts and is cut under a camera.

Times are in the unit of the scene that it belongs to, places are fractions of the frame (x to the right, y down).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Times = NDArray[np.float64]
    Tone = tuple[float, float, float]


DRIFT = 0.6  # frame widths that a texture moves at most while a video lasts


class Pattern(StrEnum):
    """What covers the background."""

    PLAIN = "plain"
    STRIPES = "stripes"
    CHECKS = "checks"
    DOTS = "dots"


@dataclass(frozen=True)
class Shot:
    """The background from `start` until the next cut: two tones (RGB, 0 to 1), how many repeats a frame, where."""

    start: float
    tones: tuple[Tone, Tone]
    repeats: float
    phase: tuple[float, float]
    drift: tuple[float, float]  # frame widths a unit of time


@dataclass(frozen=True)
class Camera:
    """Sways by `reach` of the frame and changes its exposure by `exposure`, both once in `period` seconds."""

    reach: tuple[float, float]
    exposure: float
    period: float
    phase: float

    def offsets(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much everything is shifted at `times` [T], as [T, 2]."""
        angle = 2 * np.pi * times / self.period + self.phase
        return np.stack([self.reach[0] * np.sin(angle), self.reach[1] * np.cos(angle)], axis=-1)

    def gains(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Brightness at `times` [T], 1 on average."""
        return 1 + self.exposure * np.sin(2 * np.pi * times / self.period + 2 * self.phase)


@dataclass(frozen=True)
class Backdrop:
    """All of it for one video."""

    pattern: Pattern
    shots: tuple[Shot, ...]
    camera: Camera


def random_backdrop(rng: np.random.Generator, duration: float) -> Backdrop:
    """Draw one for a video that lasts from 0 to `duration`."""
    pattern = list(Pattern)[int(rng.integers(len(Pattern)))]
    return Backdrop(pattern, random_shots(rng, duration), random_camera(rng, duration))


def random_shots(rng: np.random.Generator, duration: float) -> tuple[Shot, ...]:
    """One shot, or two or three with cuts between them."""
    num_cuts = int(rng.choice(np.array([0, 0, 1, 2])))
    cuts = sorted(rng.uniform(0.1, 0.9, size=num_cuts) * duration)
    return tuple(_shot(rng, rounded(start), DRIFT / duration) for start in [0.0, *cuts])


def _shot(rng: np.random.Generator, start: float, most_drift: float) -> Shot:
    dark, light = rng.uniform(0.04, 0.2), rng.uniform(0.3, 0.42)
    tints = rng.uniform(-0.03, 0.03, size=(2, 3))
    first, second = (
        (rounded(tone[0]), rounded(tone[1]), rounded(tone[2])) for tone in (dark + tints[0], light + tints[1])
    )
    phase, drift = rng.uniform(0, 1, size=2), rng.uniform(-most_drift, most_drift, size=2)
    return Shot(start, (first, second), rounded(rng.uniform(3.0, 4.5)), rounded_pair(phase), rounded_pair(drift))


def random_camera(rng: np.random.Generator, duration: float) -> Camera:
    """One that sways once in half to twice the `duration`."""
    reach = rng.uniform(0.0, 0.025, size=2)
    period = rounded(rng.uniform(0.6, 2.0) * duration)
    return Camera(rounded_pair(reach), rounded(rng.uniform(0.0, 0.15)), period, rounded(rng.uniform(0, 2 * np.pi)))


def rounded(number: float) -> float:
    """Short enough for a description to be the scene itself."""
    return round(float(number), 4)


def rounded_pair(numbers: NDArray[np.float64]) -> tuple[float, float]:
    """The same of a place."""
    return rounded(numbers[0]), rounded(numbers[1])


def draw_backdrop(
    pattern: Pattern, shots: Sequence[Shot], size: int, times: Times, sway: NDArray[np.float64]
) -> Floats:
    """Frames [T, size, size, 3], float32 from 0 to 1, at `times` [T], shifted by `sway` [T, 2] as the camera is."""
    frames = np.empty((len(times), size, size, 3), dtype=np.float32)
    starts = np.array([shot.start for shot in shots])
    current = np.searchsorted(starts, times, side="right") - 1
    for number, shot in enumerate(shots):
        shown = np.flatnonzero(current == number)
        if len(shown):
            share = _texture(pattern, shot, size, times[shown], sway[shown])[..., None]
            dark, light = (np.asarray(tone, dtype=np.float32) for tone in shot.tones)
            frames[shown] = dark + share * (light - dark)
    return frames


def _texture(pattern: Pattern, shot: Shot, size: int, times: Times, sway: NDArray[np.float64]) -> Floats:
    """How light the background is, [T, size, size] from 0 to 1, with edges about two pixels soft."""
    place = (np.arange(size) + 0.5) / size
    moved = sway + np.asarray(shot.phase) + np.asarray(shot.drift) * times[:, None]
    x = ((place[None] - moved[:, :1]) * shot.repeats).astype(np.float32)[:, None, :]
    y = ((place[None] - moved[:, 1:]) * shot.repeats).astype(np.float32)[:, :, None]
    sharpness = np.float32(size / (6 * shot.repeats))
    full = np.float32(2 * np.pi)
    if pattern is Pattern.PLAIN:
        return np.full((len(times), size, size), 0.3, dtype=np.float32)
    if pattern is Pattern.STRIPES:
        wave = np.sin(full * (x + y) / np.float32(np.sqrt(2)))
    elif pattern is Pattern.CHECKS:
        wave = np.sin(full * x / 2) * np.sin(full * y / 2) * 2
    else:
        across, down = x - np.floor(x) - np.float32(0.5), y - np.floor(y) - np.float32(0.5)
        wave = (np.float32(0.27) - np.sqrt(across * across + down * down)) * 4
    return np.asarray(np.clip(0.5 + wave * sharpness, 0, 1), dtype=np.float32)


NUM_FRAMES = 32
EDGE_MARGIN = 0.02  # between an object and the border, and between two objects
DIGIT_RADIUS = 0.15  # half the height of a digit, a little more than half its width
MIN_TRAVEL, MAX_TRAVEL = 0.42, 0.66
LATEST_MOVING_APPEARANCE = 13.0  # what appears later stays where it is: too little time is left to see it move
MAX_OBJECTS = 3
WITH_BACKDROP = 0.75  # of all scenes; the others are on an even tone and unmoved


class Shape(StrEnum):
    """What an object is; the objects of a scene have different shapes."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    HEART = "heart"


class Colour(StrEnum):
    """Colour of an object; the objects of a scene have different colours."""

    RED = "red"
    GREEN = "green"
    BLUE = "blue"
    YELLOW = "yellow"
    PURPLE = "purple"
    ORANGE = "orange"
    WHITE = "white"


FLASH_COLOURS = (Colour.RED, Colour.GREEN, Colour.BLUE, Colour.YELLOW, Colour.PURPLE)


class Direction(StrEnum):
    """Where an object moves, as the viewer sees it."""

    LEFT = "left"
    RIGHT = "right"
    UP = "up"
    DOWN = "down"
    STILL = "still"


class Place(StrEnum):
    """The parts of the frame that a position is named by."""

    TOP_LEFT = "top left"
    TOP_RIGHT = "top right"
    BOTTOM_LEFT = "bottom left"
    BOTTOM_RIGHT = "bottom right"
    MIDDLE = "middle"


STEPS: dict[Direction, tuple[float, float]] = {
    Direction.LEFT: (-1.0, 0.0),
    Direction.RIGHT: (1.0, 0.0),
    Direction.UP: (0.0, -1.0),
    Direction.DOWN: (0.0, 1.0),
    Direction.STILL: (0.0, 0.0),
}


@dataclass(frozen=True)
class SceneObject:
    """One shape that appears at `appears_at` and moves evenly from `start` to `end` until the video ends."""

    shape: Shape
    colour: Colour
    radius: float
    direction: Direction
    start: tuple[float, float]
    end: tuple[float, float]
    appears_at: float = 0.0

    def positions(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centre at `times` [T], as [T, 2] of (x, y)."""
        share = np.clip((times - self.appears_at) / (NUM_FRAMES - 1 - self.appears_at), 0.0, 1.0)[:, None]
        return np.asarray(self.start) * (1 - share) + np.asarray(self.end) * share

    @property
    def final_place(self) -> Place | None:
        """Part of the frame it ends in; None where a viewer could hesitate between two."""
        x, y = self.end[0] - 0.5, self.end[1] - 0.5
        if abs(x) < 0.1 and abs(y) < 0.1:
            return Place.MIDDLE
        if abs(x) < 0.17 or abs(y) < 0.17:
            return None
        return Place(f"{'top' if y < 0 else 'bottom'} {'left' if x < 0 else 'right'}")


@dataclass(frozen=True)
class Flash:
    """The background turns `colour` for the one sampled frame `frame`."""

    colour: Colour
    frame: int


@dataclass(frozen=True)
class DigitCard:
    """The digit `value` is shown at `centre` for `num_frames` sampled frames from `frame` on."""

    value: int
    frame: int
    num_frames: int
    centre: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """Everything a video shows; `background` holds the RGB of its top and bottom edge, 0 to 1, where no `backdrop` is.

    The camera of a backdrop shifts and lights everything.
    """

    objects: tuple[SceneObject, ...]
    background: tuple[tuple[float, float, float], tuple[float, float, float]]
    flash: Flash | None = None
    digit: DigitCard | None = None
    backdrop: Backdrop | None = None

    def __post_init__(self) -> None:
        shapes = [item.shape for item in self.objects]
        if len(set(shapes)) != len(shapes):
            raise ValueError(f"the objects of a scene need different shapes, got {shapes}")

    @property
    def has_order(self) -> bool:
        """Whether the objects appear one after another rather than all at the start."""
        return any(item.appears_at > 0 for item in self.objects)

    def sway(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much the camera shifts everything at `times` [T], as [T, 2]."""
        return np.zeros((len(times), 2)) if self.backdrop is None else self.backdrop.camera.offsets(times)

    def find(self, shape: Shape) -> SceneObject | None:
        """The object of that shape, if there is one."""
        return next((item for item in self.objects if item.shape == shape), None)


def random_scene(rng: np.random.Generator, *, still: bool = False) -> Scene:
    """Draw a scene; `still` gives one in which nothing moves, appears or vanishes (a single frame tells it all)."""
    count = int(rng.integers(1, MAX_OBJECTS + 1))
    in_order = not still and 2 <= count <= 3 and rng.random() < 0.6
    appearances = _appearances(rng, count) if in_order else np.zeros(count)
    colours = rng.permutation(np.array(list(Colour)))[:count]
    shapes = rng.permutation(np.array(list(Shape)))[:count]
    objects: list[SceneObject] = []
    for shape, colour, appears_at in zip(shapes, colours, appearances, strict=True):
        fixed = still or appears_at > LATEST_MOVING_APPEARANCE
        placed = _place(rng, objects, Shape(shape), Colour(colour), float(appears_at), fixed=fixed)
        if placed is not None:  # a full frame: the scene then has fewer objects
            objects.append(placed)
    flash_frame, digit_frame = _two_moments(rng, still)
    flash = Flash(Colour(rng.choice(np.array(FLASH_COLOURS))), flash_frame) if rng.random() < 0.7 else None
    digit = _digit(rng, objects, digit_frame, still) if rng.random() < 0.75 else None
    backdrop = random_backdrop(rng, NUM_FRAMES - 1.0) if rng.random() < WITH_BACKDROP else None
    return Scene(tuple(objects), _background(rng), flash, digit, backdrop)


def _appearances(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Times at least seven frames apart, the first at the start, in random order of objects."""
    times = [0.0, float(rng.integers(8, 14)), float(rng.integers(18, 22))]
    return rng.permutation(np.array(times[:count]))


def _two_moments(rng: np.random.Generator, still: bool) -> tuple[int, int]:
    if still:
        return 0, 0
    flash = int(rng.integers(0, NUM_FRAMES))
    free = [frame for frame in range(NUM_FRAMES - 1) if frame not in (flash - 1, flash)]
    return flash, int(rng.choice(np.array(free)))


def _background(rng: np.random.Generator) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Two dark, nearly grey tones."""
    base = rng.uniform(0.03, 0.3)
    tones = base + rng.uniform(-0.03, 0.05, size=(2, 3)) + rng.uniform(0.0, 0.06, size=(2, 1))
    top, bottom = np.clip(tones, 0.0, 1.0)
    return (float(top[0]), float(top[1]), float(top[2])), (float(bottom[0]), float(bottom[1]), float(bottom[2]))


def _place(
    rng: np.random.Generator,
    others: list[SceneObject],
    shape: Shape,
    colour: Colour,
    appears_at: float,
    *,
    fixed: bool,
    num_tries: int = 60,
) -> SceneObject | None:
    """Draw a path inside the frame that keeps clear of `others` at all times; None when none was found."""
    times = np.arange(NUM_FRAMES, dtype=np.float64)
    paths = [(item.positions(times), item.radius) for item in others]
    moving = [Direction.LEFT, Direction.RIGHT, Direction.UP, Direction.DOWN]
    direction = Direction.STILL if fixed else moving[int(rng.integers(4))]
    for attempt in range(num_tries):
        if not fixed and attempt > num_tries // 2:  # the way is blocked: another one may be free
            direction = moving[int(rng.integers(4))]
        radius = rng.uniform(0.095, 0.13)
        low, high = radius + EDGE_MARGIN, 1 - radius - EDGE_MARGIN
        travel = rng.uniform(MIN_TRAVEL, MAX_TRAVEL)
        step = np.asarray(STEPS[direction]) * travel
        start = rng.uniform(np.maximum(low, low - step), np.minimum(high, high - step))
        end = start + step
        candidate = SceneObject(
            shape,
            colour,
            float(radius),
            direction,
            (float(start[0]), float(start[1])),
            (float(end[0]), float(end[1])),
            appears_at,
        )
        path = candidate.positions(times)
        if all(np.hypot(*(path - p).T).min() > radius + r + EDGE_MARGIN for p, r in paths):
            return candidate
    return None


def _digit(rng: np.random.Generator, objects: list[SceneObject], frame: int, still: bool) -> DigitCard | None:
    """A digit in a free part of the frame; None when the frame is full."""
    num_frames = 1 if still else int(rng.integers(1, 3))
    times = np.arange(frame, frame + num_frames, dtype=np.float64)
    for _ in range(60):
        centre = rng.uniform(DIGIT_RADIUS + EDGE_MARGIN, 1 - DIGIT_RADIUS - EDGE_MARGIN, size=2)
        clear = all(
            np.hypot(*(item.positions(times) - centre).T).min() > item.radius + DIGIT_RADIUS for item in objects
        )
        if clear:
            return DigitCard(int(rng.integers(0, 10)), frame, num_frames, (float(centre[0]), float(centre[1])))
    return None
