"""A benchmark scene becomes frames, at any size. Shapes and digits are drawn as tiny's are; compresses nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.training.benchmark.scenes import BenchmarkScene, Glyph, Pattern, Ring, Shot
from sfvqa.training.render import DIGIT_STROKES, RGB, blend_shape, blend_strokes, shape_distance
from sfvqa.training.scenes import STEPS, Colour

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
PULSE_WIDTH = 0.05  # of the frame


def render(scene: BenchmarkScene, size: int, times: Times | None = None) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3] uint8 RGB of `scene` at `times` [T] in seconds (default: every moment)."""
    shades = render_float(scene, size, scene.timeline.seconds if times is None else times) * 255.0 + 0.5
    return np.asarray(np.clip(shades, 0, 255), dtype=np.uint8)


def render_float(scene: BenchmarkScene, size: int, times: Times) -> Floats:
    """The same, float32 from 0 to about 1."""
    sway = scene.camera.offsets(times)
    frames = _backgrounds(scene, size, times, sway)
    if scene.flash is not None:
        frames[scene.flash.span.holds(times)] = RGB[scene.flash.colour]
    for mover in scene.movers:
        visible = np.flatnonzero(times >= mover.appears_at)
        places = mover.positions(times[visible]) + sway[visible]
        distance = partial(shape_distance, mover.shape)
        blend_shape(frames, distance, RGB[mover.colour], mover.radius, visible, places)
    if scene.ring is not None:
        _draw_ring(frames, scene.ring, times, sway)
    for glyph in (*scene.digits, *([scene.letter] if scene.letter else [])):
        _draw_glyph(frames, glyph, times, sway)
    edge = max(1, round(PULSE_WIDTH * size))
    for pulse in scene.pulses:
        lit = np.flatnonzero(pulse.holds(times))
        for part in (np.s_[lit, :edge], np.s_[lit, -edge:], np.s_[lit, :, :edge], np.s_[lit, :, -edge:]):
            frames[part] = RGB[Colour.WHITE]
    frames *= scene.camera.gains(times).astype(np.float32)[:, None, None, None]
    return frames


def _backgrounds(scene: BenchmarkScene, size: int, times: Times, sway: NDArray[np.float64]) -> Floats:
    frames = np.empty((len(times), size, size, 3), dtype=np.float32)
    starts = np.array([shot.start for shot in scene.shots])
    current = np.searchsorted(starts, times, side="right") - 1
    for number, shot in enumerate(scene.shots):
        shown = np.flatnonzero(current == number)
        if len(shown):
            share = _texture(scene.pattern, shot, size, times[shown], sway[shown])[..., None]
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


def _draw_ring(frames: Floats, ring: Ring, times: Times, sway: NDArray[np.float64]) -> None:
    right, down = STEPS[ring.gap]

    def distance(x: Floats, y: Floats) -> Floats:
        band = np.abs(np.sqrt(x * x + y * y) - np.float32(RING_MIDDLE)) - np.float32(RING_HALF_WIDTH)
        along, across = x * right + y * down, np.abs(x * down - y * right)
        gap = np.maximum(across - np.float32(GAP_HALF_WIDTH), -along)
        return np.asarray(np.maximum(band, -gap), dtype=np.float32)

    def disc(x: Floats, y: Floats) -> Floats:
        return np.asarray(np.sqrt(x * x + y * y) - np.float32(1.08), dtype=np.float32)

    visible = np.flatnonzero(ring.span.holds(times))
    places = np.asarray(ring.centre) + sway[visible]
    blend_shape(frames, disc, (0.03, 0.03, 0.03), ring.radius, visible, places)
    blend_shape(frames, distance, RGB[Colour.WHITE], ring.radius, visible, places)


def _draw_glyph(frames: Floats, glyph: Glyph, times: Times, sway: NDArray[np.float64]) -> None:
    for frame in np.flatnonzero(glyph.span.holds(times)):
        centre = (glyph.centre[0] + float(sway[frame, 0]), glyph.centre[1] + float(sway[frame, 1]))
        blend_strokes(frames, STROKES[glyph.text], glyph.radius, centre, np.array([frame]))
