"""What is behind the things of a synthetic video: textures that drift, cuts between them, a camera that sways.

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
