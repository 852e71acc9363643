"""A benchmark scene becomes frames, at any size. Shapes and digits are drawn as tiny's are; compresses nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.training.backdrop import draw_backdrop
from sfvqa.training.benchmark.scenes import BenchmarkScene, Burst, Plate, Sign
from sfvqa.training.render import DIGIT_STROKES, RGB, blend_shape, blend_strokes, shape_distance
from sfvqa.training.scenes import STEPS, Colour, Direction

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Times = NDArray[np.float64]

LETTER_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(-0.52, 0.82), (0.0, -0.82), (0.52, 0.82)], [(-0.3, 0.3), (0.3, 0.3)]],
    "E": [[(0.45, -0.82), (-0.4, -0.82), (-0.4, 0.82), (0.45, 0.82)], [(-0.4, 0.0), (0.32, 0.0)]],
    "H": [[(-0.45, -0.82), (-0.45, 0.82)], [(0.45, -0.82), (0.45, 0.82)], [(-0.45, 0.0), (0.45, 0.0)]],
    "L": [[(-0.4, -0.82), (-0.4, 0.82), (0.45, 0.82)]],
    "N": [[(-0.45, 0.82), (-0.45, -0.82), (0.45, 0.82), (0.45, -0.82)]],
    "T": [[(-0.52, -0.82), (0.52, -0.82)], [(0.0, -0.82), (0.0, 0.82)]],
    "X": [[(-0.5, -0.82), (0.5, 0.82)], [(0.5, -0.82), (-0.5, 0.82)]],
    "Y": [[(-0.5, -0.82), (0.0, 0.0), (0.5, -0.82)], [(0.0, 0.0), (0.0, 0.82)]],
}
STROKES = {str(digit): lines for digit, lines in DIGIT_STROKES.items()} | LETTER_STROKES
RING_HALF_WIDTH, RING_MIDDLE, GAP_HALF_WIDTH = 0.2, 0.74, 0.32  # in radii
GLYPH_RADIUS, RING_RADIUS = 0.72, 0.66  # in radii of the plate
PULSE_WIDTH = 0.05  # of the frame


def render(scene: BenchmarkScene, size: int, times: Times | None = None) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3] uint8 RGB of `scene` at `times` [T] in seconds (default: every moment)."""
    shades = render_float(scene, size, scene.timeline.seconds if times is None else times) * 255.0 + 0.5
    return np.asarray(np.clip(shades, 0, 255), dtype=np.uint8)


def render_float(scene: BenchmarkScene, size: int, times: Times) -> Floats:
    """The same, float32 from 0 to about 1."""
    sway = scene.camera.offsets(times)
    frames = draw_backdrop(scene.pattern, scene.shots, size, times, sway)
    if scene.flash is not None:
        frames[scene.flash.span.holds(times)] = RGB[scene.flash.colour]
    for mover in scene.movers:
        visible = np.flatnonzero(times >= mover.appears_at)
        places = mover.positions(times[visible]) + sway[visible]
        distance = partial(shape_distance, mover.shape)
        blend_shape(frames, distance, RGB[mover.colour], mover.radius, visible, places)
    for burst in scene.bursts:
        for plate in burst.plates:
            visible = np.flatnonzero(plate.span.holds(times))
            _draw_plate(frames, burst, plate, visible, np.asarray(burst.centre) + sway[visible])
    edge = max(1, round(PULSE_WIDTH * size))
    for pulse in scene.pulses:
        lit = np.flatnonzero(pulse.holds(times))
        for part in (np.s_[lit, :edge], np.s_[lit, -edge:], np.s_[lit, :, :edge], np.s_[lit, :, -edge:]):
            frames[part] = RGB[Colour.WHITE]
    frames *= scene.camera.gains(times).astype(np.float32)[:, None, None, None]
    return frames


def _draw_plate(
    frames: Floats, burst: Burst, plate: Plate, visible: NDArray[np.intp], places: NDArray[np.float64]
) -> None:
    blend_shape(frames, _disc, RGB[plate.colour], burst.radius, visible, places)
    if burst.sign is Sign.RING:
        opened = partial(_ring_distance, STEPS[Direction(plate.text)])
        blend_shape(frames, opened, RGB[Colour.WHITE], RING_RADIUS * burst.radius, visible, places)
        return
    for frame, (x, y) in zip(visible, places, strict=True):
        blend_strokes(frames, STROKES[plate.text], GLYPH_RADIUS * burst.radius, (float(x), float(y)), np.array([frame]))


def _disc(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.sqrt(x * x + y * y) - np.float32(1.0), dtype=np.float32)


def _ring_distance(gap: tuple[float, float], x: Floats, y: Floats) -> Floats:
    right, down = gap
    band = np.abs(np.sqrt(x * x + y * y) - np.float32(RING_MIDDLE)) - np.float32(RING_HALF_WIDTH)
    along, across = x * right + y * down, np.abs(x * down - y * right)
    opening = np.maximum(across - np.float32(GAP_HALF_WIDTH), -along)
    return np.asarray(np.maximum(band, -opening), dtype=np.float32)
