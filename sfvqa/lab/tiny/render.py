"""A scene becomes frames, at any resolution, antialiased by signed distance; and frames become files or pixels."""

from __future__ import annotations

from functools import lru_cache, partial
from io import BytesIO
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from sfvqa.errors import UsageError
from sfvqa.lab.tiny.scenes import DIGIT_RADIUS, NUM_FRAMES, Colour, DigitCard, Scene, SceneObject, Shape, draw_backdrop
from sfvqa.model.families.slowfast import CLIP_MEAN, CLIP_STD

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

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


_MOST_LOSSY = 51


def check_quality(quality: int) -> None:
    """Raise UsageError for what is no constant rate factor of x264."""
    if not 0 <= quality <= _MOST_LOSSY:
        raise UsageError(f"x264 has no constant rate factor {quality}.", f"It goes from 0 to {_MOST_LOSSY}.")


def write_h264(
    frames: NDArray[np.uint8],
    file: str | BinaryIO,
    *,
    fps: int = 12,
    quality: int = 23,
    preset: str = "superfast",
) -> None:
    """Write frames [T, H, W, 3] as mp4 (H.264, 4:2:0); `quality` is x264's constant rate factor, lower is better."""
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": preset}
        stream.codec_context.thread_count = 1
        stream.height, stream.width = frames.shape[1:3]
        reformatter = VideoReformatter()  # frames make one each otherwise, and that costs more than the rest
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(reformatter.reformat(frame, format="yuv420p")))
        container.mux(stream.encode())


def compress(frames: NDArray[np.uint8], *, quality: int = 23) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] as they come out of an mp4 of that `quality`; H and W are even."""
    file = BytesIO()
    write_h264(frames, file, quality=quality)
    file.seek(0)
    reformatter = VideoReformatter()
    with av.open(file, "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        read: NDArray[np.uint8] = np.stack(
            [reformatter.reformat(frame, format="rgb24").to_ndarray() for frame in container.decode(video=0)]
        ).astype(np.uint8)
    if read.shape != frames.shape:
        raise ValueError(f"{len(frames)} frames went in and {len(read)} came out")
    return read


ENCODED = 0.7  # of the videos
QUALITIES = (14, 30)  # of x264
_BANK_SIZE = 1 << 21


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[np.float32]:
    """Noise to cut pieces from: drawing it afresh for every frame would cost more than rendering the frame."""
    return np.random.default_rng(0).standard_normal(_BANK_SIZE, dtype=np.float32)


def roughen(frames: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise, blur, brightness and contrast as compression and resizing leave them, on frames [T, S, S, 3] in 0…1."""
    if rng.random() < 0.35:
        weight = np.float32(rng.uniform(0.0, 0.25))
        frames = frames.copy()
        frames[:, 1:-1] += weight * (frames[:, 2:] + frames[:, :-2] - 2 * frames[:, 1:-1])
        frames[:, :, 1:-1] += weight * (frames[:, :, 2:] + frames[:, :, :-2] - 2 * frames[:, :, 1:-1])
    gain, shift = np.float32(rng.uniform(0.92, 1.06)), np.float32(rng.uniform(-0.02, 0.02))
    offset = int(rng.integers(0, max(1, _BANK_SIZE - frames.size)))
    noise = np.resize(_noise_bank()[offset : offset + frames.size], frames.shape)
    rough: NDArray[np.float32] = np.clip(frames * gain + (shift + noise * np.float32(rng.uniform(0.0, 0.03))), 0.0, 1.0)
    return rough


def as_shares(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Frames of bytes → the same from 0 to 1."""
    return frames.astype(np.float32) / np.float32(255)


def normalise(frames: NDArray[np.float32]) -> Tensor:
    """Frames [T, S, S, 3] from 0 to 1 → pixel values [T, 3, S, S] with CLIP's mean and deviation."""
    mean, deviation = np.asarray(CLIP_MEAN, dtype=np.float32), np.asarray(CLIP_STD, dtype=np.float32)
    return torch.from_numpy((frames - mean) / deviation).permute(0, 3, 1, 2)


def as_filmed(frames: NDArray[np.float32], rng: np.random.Generator) -> Tensor:
    """Pixel values [T, 3, S, S] of drawn frames [T, S, S, 3], mostly as a real encoder leaves them, roughened."""
    if rng.random() < ENCODED:
        quality = int(rng.integers(*QUALITIES))
        frames = as_shares(compress(np.clip(frames * 255 + 0.5, 0, 255).astype(np.uint8), quality=quality))
    return normalise(roughen(frames, rng))


def training_pixels(scene: Scene, size: int, times: NDArray[np.float64], rng: np.random.Generator) -> Tensor:
    """Pixel values [T, 3, size, size] of `scene` at `times` [T], as they are filmed."""
    return as_filmed(render_float(scene, size, times), rng)


def frame_times(num_frames: int) -> NDArray[np.float64]:
    """When each frame of a video is, counted in sampled frames: the first at 0, the last at NUM_FRAMES - 1.

    Sampled uniformly with both ends at NUM_FRAMES frames, what a scene shows for one of them is seen exactly once.
    """
    return np.linspace(0, NUM_FRAMES - 1, num_frames)


def write_video(
    scene: Scene,
    path: Path,
    *,
    size: int = 160,
    num_frames: int = 96,
    fps: int = 24,
    quality: int = 20,
    preset: str = "veryfast",
) -> None:
    """Write `scene` as H.264, `size` × `size` pixels; `quality` is x264's constant rate factor, lower is better."""
    write_h264(render(scene, size, frame_times(num_frames)), str(path), fps=fps, quality=quality, preset=preset)
