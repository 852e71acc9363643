"""Writes video files whose every frame carries its own number in big black and white blocks, and reads it back.

A frame is right only if its number is the one asked for: the lower half repeats the number inverted, so that a frame
which the decoder patched up from others does not pass.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

SPEED = {
    "libx264": {"preset": "medium", "x264-params": "scenecut=0:mbtree=0"},  # with mbtree, each run writes other bytes
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
}
"""Options of the encoders."""

COLUMNS, ROWS, BLOCK = 6, 4, 24
WIDTH, HEIGHT = COLUMNS * BLOCK, ROWS * BLOCK
BITS = COLUMNS * ROWS // 2


def numbered_picture(number: int) -> NDArray[np.uint8]:
    """A picture [96, 144, 3] of `number` (below 4096) in blocks, under noise that keeps the encoder from skipping."""
    bits = [number >> place & 1 for place in range(BITS)]
    blocks = np.array([*bits, *(1 - bit for bit in bits)]).reshape(ROWS, COLUMNS) * 150 + 50
    noise = np.random.default_rng(number).integers(-30, 31, (HEIGHT, WIDTH))
    grey = np.kron(blocks, np.ones((BLOCK, BLOCK))) + noise
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def number_in(pixels: NDArray[np.uint8]) -> int | None:
    """The number shown, from pixels [H, W, 3] of any size; None if the picture is not whole."""
    height, width = pixels.shape[:2]
    bits = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            # The middle half of each block.
            top, left = height * (4 * row + 1) // (4 * ROWS), width * (4 * column + 1) // (4 * COLUMNS)
            bottom, right = height * (4 * row + 3) // (4 * ROWS), width * (4 * column + 3) // (4 * COLUMNS)
            bits.append(int(pixels[top:bottom, left:right].mean() > 125))
    if any(bit == inverse for bit, inverse in zip(bits[:BITS], bits[BITS:], strict=True)):
        return None
    return sum(bit << place for place, bit in enumerate(bits[:BITS]))


@dataclass(frozen=True)
class Recipe:
    """How a test video is made: `times` are those of its frames, in milliseconds unless there are other ticks."""

    times: Sequence[int]
    codec: str = "libx264"
    group: int = 250
    options: dict[str, str] = field(default_factory=dict)
    container_options: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    with_sound: bool = False
    ticks_per_second: int = 1000

    @property
    def seconds(self) -> list[float]:
        """When each frame is shown, from the first one."""
        return [(time - self.times[0]) / self.ticks_per_second for time in self.times]


def constant_rate(frames: int, fps: int = 25) -> list[int]:
    """Times in milliseconds (choose a rate that divides 1000)."""
    return [place * 1000 // fps for place in range(frames)]


def upright_to_stored(picture: NDArray[np.uint8], rotation: int) -> NDArray[np.uint8]:
    """What a camera that was turned stores, given what a player shows after turning it counter-clockwise."""
    return np.ascontiguousarray(np.rot90(picture, -rotation // 90))


def write_video(path: Path, recipe: Recipe) -> Path:
    """Write the video, whose n-th frame shows the number n; always the same bytes, for the tests that damage them."""
    pictures = [upright_to_stored(numbered_picture(number), recipe.rotation) for number in range(len(recipe.times))]
    with av.open(str(path), "w", options={"fflags": "+bitexact", **recipe.container_options}) as container:
        stream = container.add_stream(recipe.codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = recipe.group
        stream.codec_context.thread_count = 3  # what is written depends on it, so not as many as the machine has
        if recipe.codec not in ("mpeg4", "mpeg2video"):  # these want a time base that is a frame rate
            stream.codec_context.time_base = Fraction(1, recipe.ticks_per_second)
        stream.options = {**SPEED.get(recipe.codec, {}), **recipe.options}
        if recipe.rotation:
            stream.set_display_rotation(recipe.rotation)
        sound = container.add_stream("aac", rate=16000) if recipe.with_sound else None
        for time, picture in zip(recipe.times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = Fraction(1, recipe.ticks_per_second)
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for packet in _silence(sound, recipe.times[-1] / recipe.ticks_per_second):
                container.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        for packet in _silence(stream, 1.0):
            container.mux(packet)
    return path


def _silence(stream: av.AudioStream, seconds: float) -> "Iterable[av.Packet[av.AudioStream]]":
    for start in range(0, int(seconds * 16000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        yield from stream.encode(frame)
    yield from stream.encode(None)
