"""A Scene becomes frames, at any resolution, antialiased by signed distance. Knows nothing of questions or files."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.training.backdrop import draw_backdrop
from sfvqa.training.scenes import DIGIT_RADIUS, NUM_FRAMES, Colour, DigitCard, Scene, SceneObject, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RGB: dict[Colour, tuple[float, float, float]] = {
    Colour.RED: (0.90, 0.16, 0.16),
    Colour.GREEN: (0.16, 0.72, 0.26),
    Colour.BLUE: (0.16, 0.38, 0.95),
    Colour.YELLOW: (0.97, 0.86, 0.16),
    Colour.PURPLE: (0.64, 0.24, 0.84),
    Colour.ORANGE: (0.98, 0.54, 0.10),
    Colour.WHITE: (0.95, 0.95, 0.95),
}
STROKE = 0.15  # half width of a digit's stroke, in half heights of the digit
HALO = 0.16  # dark rim around it, so that it reads on any background


def render(scene: Scene, size: int, times: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3] uint8 RGB of `scene` at `times` [T] (default: every sampled frame once)."""
    moments = np.arange(NUM_FRAMES, dtype=np.float64) if times is None else np.asarray(times, dtype=np.float64)
    shades = render_float(scene, size, moments) * 255.0 + 0.5
    return np.asarray(np.clip(shades, 0, 255), dtype=np.uint8)


def render_float(scene: Scene, size: int, times: NDArray[np.float64]) -> Floats:
    """The same, float32 from 0 to 1."""
    sway = scene.sway(times)
    frames = _background(scene, size, times, sway)
    nearest = np.floor(times + 0.5)
    if scene.flash is not None:
        frames[nearest == scene.flash.frame] = RGB[scene.flash.colour]
    for item in scene.objects:
        _draw_object(frames, item, np.flatnonzero(nearest >= item.appears_at), times, sway)
    if scene.digit is not None:
        shown = (nearest >= scene.digit.frame) & (nearest < scene.digit.frame + scene.digit.num_frames)
        _draw_digit(frames, scene.digit, np.flatnonzero(shown), sway)
    if scene.backdrop is not None:
        frames *= scene.backdrop.camera.gains(times).astype(np.float32)[:, None, None, None]
    return frames


def _background(scene: Scene, size: int, times: NDArray[np.float64], sway: NDArray[np.float64]) -> Floats:
    if scene.backdrop is not None:
        return draw_backdrop(scene.backdrop.pattern, scene.backdrop.shots, size, times, sway)
    top, bottom = (np.asarray(tone, dtype=np.float32) for tone in scene.background)
    share = ((np.arange(size, dtype=np.float32) + 0.5) / size)[:, None, None]
    frames = np.empty((len(times), size, size, 3), dtype=np.float32)
    frames[:] = top * (1 - share) + bottom * share
    return frames


def _draw_object(
    frames: Floats,
    item: SceneObject,
    visible: NDArray[np.intp],
    times: NDArray[np.float64],
    sway: NDArray[np.float64],
) -> None:
    centres = item.positions(times[visible]) + sway[visible]
    blend_shape(frames, partial(shape_distance, item.shape), RGB[item.colour], item.radius, visible, centres)


def blend_shape(
    frames: Floats,
    distance: Callable[[Floats, Floats], Floats],
    colour: tuple[float, float, float],
    radius: float,
    visible: NDArray[np.intp],
    places: NDArray[np.float64],
) -> None:
    """Blend a shape into the `visible` frames at its `places` [visible, 2], on a patch around its centre.

    `distance` is signed, from x and y in radii, as in `shape_distance`; `radius` and `places` are shares of the frame.
    """
    if len(visible) == 0:
        return
    size = frames.shape[1]
    patch = min(size, int(np.ceil(2 * radius * size)) + 3)
    centres = places * size  # pixels
    corners = np.clip(np.round(centres - patch / 2), 0, size - patch).astype(np.intp)
    offsets = (corners - centres + 0.5).astype(np.float32)
    line = np.arange(patch, dtype=np.float32)
    scale = np.float32(radius * size)
    x = (line[None, None, :] + offsets[:, 0, None, None]) / scale
    y = (line[None, :, None] + offsets[:, 1, None, None]) / scale
    alpha = np.clip(0.5 - distance(x, y) * scale, 0.0, 1.0)[..., None]
    ink = np.asarray(colour, dtype=np.float32)
    for number, (frame, (left, upper)) in enumerate(zip(visible, corners, strict=True)):
        region = frames[frame, upper : upper + patch, left : left + patch]
        region += alpha[number] * (ink - region)


def shape_distance(shape: Shape, x: Floats, y: Floats) -> Floats:
    """Signed distance to the edge of `shape` of radius 1, in radii; exact near the edge (after Inigo Quilez)."""
    if shape is Shape.CIRCLE:
        return np.sqrt(x * x + y * y) - np.float32(0.9)
    if shape is Shape.SQUARE:
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.78)
    if shape is Shape.TRIANGLE:
        side = np.abs(x) * np.float32(0.894) - y * np.float32(0.447) - np.float32(0.44)
        return np.asarray(np.maximum(side, y - np.float32(0.75)))
    if shape is Shape.CROSS:
        across, down = np.abs(x), np.abs(y)
        arm = np.float32(0.3)
        long = np.float32(0.92)
        return np.minimum(np.maximum(across - long, down - arm), np.maximum(across - arm, down - long))
    if shape is Shape.STAR:
        return _star(x, y)
    return _heart(x, y)


def _star(x: Floats, y: Floats) -> Floats:
    """Five points: fold the plane onto half a point, then the distance to its one edge."""
    angle = np.arctan2(np.broadcast_to(x, np.broadcast_shapes(x.shape, y.shape)), -(y - np.float32(0.05)))
    sector = np.float32(2 * np.pi / 5)
    folded = np.abs(np.mod(angle + sector / 2, sector) - sector / 2)
    radius = np.sqrt(x * x + (y - np.float32(0.05)) ** 2)
    px, py = radius * np.sin(folded), radius * np.cos(folded)
    tip, valley = np.float32(1.02), np.float32(0.45)
    vx, vy = valley * np.sin(sector / 2), valley * np.cos(sector / 2)
    ex, ey = vx, vy - tip
    return np.asarray((px * -ey + (py - tip) * ex) / np.hypot(ex, ey), dtype=np.float32)


def _heart(x: Floats, y: Floats) -> Floats:
    """Two round lobes over a point: the union of two circles and a wedge between their tangents."""
    across = np.abs(x)
    lobe = np.sqrt((across - np.float32(0.44)) ** 2 + (y + np.float32(0.3)) ** 2) - np.float32(0.5)
    tip = np.float32(0.92)
    wedge = np.maximum((across + y - tip) * np.float32(0.7071), -y - np.float32(0.3) + across * np.float32(0.0))
    inner = np.maximum(wedge, across - np.float32(0.8))
    return np.asarray(np.minimum(lobe, inner))


def _arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> list[tuple[float, float]]:
    """Points of an arc; angles in degrees, 0 to the right, growing clockwise on screen."""
    angles = np.radians(np.linspace(start, stop, 9))
    return [(float(x + rx * np.cos(a)), float(y + ry * np.sin(a))) for a in angles]


# Strokes in half heights of the digit, y down; the box is about 1.2 wide and 2 high.
DIGIT_STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [_arc(0, 0, 0.5, 0.82, 0, 180) + _arc(0, 0, 0.5, 0.82, 180, 360)],
    1: [[(-0.32, -0.45), (0.08, -0.82), (0.08, 0.82)]],
    2: [[*_arc(0, -0.36, 0.5, 0.46, -160, 30), (-0.5, 0.82), (0.52, 0.82)]],
    3: [_arc(-0.02, -0.41, 0.46, 0.41, -150, 90), _arc(-0.02, 0.41, 0.5, 0.41, -90, 150)],
    4: [[(0.25, 0.82), (0.25, -0.82), (-0.55, 0.35), (0.58, 0.35)]],
    5: [[(0.45, -0.82), (-0.4, -0.82), (-0.45, -0.08), *_arc(0, 0.3, 0.5, 0.52, -130, 140)]],
    6: [
        [(0.3, -0.82), (-0.25, -0.3), (-0.48, 0.2)],
        _arc(0, 0.35, 0.48, 0.47, 0, 180),
        _arc(0, 0.35, 0.48, 0.47, 180, 360),
    ],
    7: [[(-0.5, -0.82), (0.5, -0.82), (-0.1, 0.82)]],
    8: [
        _arc(0, -0.42, 0.4, 0.4, 0, 180) + _arc(0, -0.42, 0.4, 0.4, 180, 360),
        _arc(0, 0.4, 0.48, 0.42, 0, 180) + _arc(0, 0.4, 0.48, 0.42, 180, 360),
    ],
    9: [
        [(-0.3, 0.82), (0.25, 0.3), (0.48, -0.2)],
        _arc(0, -0.35, 0.48, 0.47, 0, 180),
        _arc(0, -0.35, 0.48, 0.47, 180, 360),
    ],
}


def _draw_digit(frames: Floats, card: DigitCard, shown: NDArray[np.intp], sway: NDArray[np.float64]) -> None:
    for frame in shown:
        x, y = np.asarray(card.centre) + sway[frame]
        blend_strokes(frames, DIGIT_STROKES[card.value], DIGIT_RADIUS, (float(x), float(y)), np.array([frame]))


def blend_strokes(
    frames: Floats,
    lines: list[list[tuple[float, float]]],
    radius: float,
    centre: tuple[float, float],
    shown: NDArray[np.intp],
) -> None:
    """Blend white `lines` (see DIGIT_STROKES) with a dark rim, 2 · `radius` high, into the frames `shown`."""
    size = frames.shape[1]
    scale = radius * size / 1.1  # pixels in half a height; the rim takes the rest
    left, upper = (max(0, int((c - radius) * size) - 1) for c in centre)
    right, lower = (min(size, int((c + radius) * size) + 2) for c in centre)
    x = ((np.arange(left, right) + 0.5 - centre[0] * size) / scale)[None, :, None]
    y = ((np.arange(upper, lower) + 0.5 - centre[1] * size) / scale)[:, None, None]
    ends = np.array([(*a, *b) for line in lines for a, b in pairwise(line)])
    ax, ay, bx, by = ends.T
    length = np.maximum((bx - ax) ** 2 + (by - ay) ** 2, 1e-9)
    share = np.clip(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length, 0, 1)
    distance = np.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay)).min(axis=-1)
    rim = np.clip(0.5 - (distance - STROKE - HALO) * scale, 0, 1)[..., None].astype(np.float32)
    ink = np.clip(0.5 - (distance - STROKE) * scale, 0, 1)[..., None].astype(np.float32)
    for frame in shown:
        region = frames[frame, upper:lower, left:right]
        region += rim * (np.float32(0.02) - region)
        region += ink * (np.float32(0.98) - region)
