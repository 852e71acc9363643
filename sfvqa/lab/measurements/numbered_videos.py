"""Videos whose every frame carries its number, to see that a reader gives the very frame asked for.

A textured picture that moves, and over its middle a grid of blocks: 20 bits of the number and, below, their inverse, so
that a frame which a decoder patched up from others does not pass.
"""

from __future__ import annotations

import os
import random
import sys
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate, repeat
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.stream import VideoStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


_COLUMNS, _ROWS = 5, 8
_BITS = _COLUMNS * _ROWS // 2
_DARK, _BRIGHT = 60, 190
_TICKS_PER_SECOND = 1000
_PAN_PIXELS = 200


@dataclass(frozen=True)
class NumberedVideo:
    """How one video is made: `rate` frames a second for `seconds`, or at uneven steps around that rate."""

    name: str
    description: str
    codec: str
    width: int
    height: int
    seconds: int
    group: int
    rate: int = 25
    has_even_steps: bool = True
    grain: float = 0.0  # standard deviation of a sensor's noise, of 255; it makes encoding many times slower
    options: dict[str, str] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """How many frames it has."""
        return self.seconds * self.rate

    def ticks(self) -> Iterator[int]:
        """When each frame is shown, in milliseconds."""
        step = _TICKS_PER_SECOND // self.rate
        if self.has_even_steps:
            return iter(range(0, self.num_frames * step, step))
        drawn = random.Random(self.name)
        steps = (round(step * drawn.choice([0.5, 1, 1, 1, 2.5])) for _ in repeat(None))
        return (time for time, _ in zip(accumulate(steps, initial=0), range(self.num_frames), strict=False))


def write_numbered(recipe: NumberedVideo, path: Path) -> None:
    """Write the video whole or not at all; one thread, so that nothing else is disturbed more than it must be."""
    unfinished = path.with_stem(f"{path.stem}.unfinished")
    texture = _texture(recipe.height + _PAN_PIXELS, recipe.width + _PAN_PIXELS)
    noise = np.random.default_rng(1).normal(0, recipe.grain, texture.shape).round().astype(np.int16)
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(recipe.codec, rate=recipe.rate, options=recipe.options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = recipe.width, recipe.height, "yuv420p"
        stream.codec_context.gop_size = recipe.group
        stream.codec_context.time_base = Fraction(1, _TICKS_PER_SECOND)
        stream.codec_context.thread_count = 1
        chroma = np.full((recipe.height // 2, recipe.width), 128, np.uint8)
        for number, ticks in enumerate(recipe.ticks()):
            luma = _picture(texture, recipe, number)
            if recipe.grain:
                y, x = np.random.default_rng(number).integers(0, _PAN_PIXELS, 2)
                grainy = luma + noise[y : y + recipe.height, x : x + recipe.width]
                luma = grainy.clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.concatenate([luma, chroma]), format="yuv420p")
            frame.pts, frame.time_base = ticks, Fraction(1, _TICKS_PER_SECOND)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    os.replace(unfinished, path)  # noqa: PTH105  atomic on every system


def find_or_write(recipe: NumberedVideo, folder: Path) -> Path:
    """The video in `folder`, written there if it is missing."""
    path = folder / recipe.name
    if not path.exists():
        print(f"writing {path}: {recipe.description}", file=sys.stderr)
        folder.mkdir(parents=True, exist_ok=True)
        write_numbered(recipe, path)
    return path


def find_or_write_many(folder: Path, count: int) -> list[Path]:
    """`count` videos of ten seconds, 640 × 360, H.264 with a key frame every 250, those missing written."""
    recipe = NumberedVideo("", "10 s, 360p, H.264, GOP 250", "libx264", 640, 360, 10, 250)
    return [find_or_write(replace(recipe, name=f"{number:03}.mp4"), folder) for number in range(count)]


def number_in(pixels: NDArray[np.uint8]) -> int | None:
    """The number that a picture [H, W, …] of any size shows in its middle; None if it is not whole."""
    height, width = pixels.shape[:2]
    block = height / 10
    left, top = width / 2 - _COLUMNS / 2 * block, height / 2 - _ROWS / 2 * block
    bits = []
    for row in range(_ROWS):
        for column in range(_COLUMNS):
            y, x = top + row * block, left + column * block
            inner = pixels[
                round(y + block / 4) : round(y + block * 3 / 4), round(x + block / 4) : round(x + block * 3 / 4)
            ]
            bits.append(int(inner.mean() > (_DARK + _BRIGHT) / 2))
    if any(bit == inverse for bit, inverse in zip(bits[:_BITS], bits[_BITS:], strict=True)):
        return None
    return sum(bit << place for place, bit in enumerate(bits[:_BITS]))


def _texture(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth noise with a little grain: what a lens leaves of a scene."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.integers(40, 215, (height // 16 + 1, width // 16 + 1)), np.ones((16, 16)))[:height, :width]
    for axis in (0, 1):
        coarse = np.mean([np.roll(coarse, shift, axis) for shift in range(-8, 9)], axis=0)
    return np.clip(coarse + rng.normal(0, 4, (height, width)), 0, 255).astype(np.uint8)


def _picture(texture: NDArray[np.uint8], recipe: NumberedVideo, number: int) -> NDArray[np.uint8]:
    """The luma [H, W] of one frame: a window that pans over the texture, and the grid."""
    x, y = (abs((number // step) % (2 * _PAN_PIXELS) - _PAN_PIXELS) for step in (1, 2))
    luma = texture[y : y + recipe.height, x : x + recipe.width].copy()
    block = recipe.height // 10
    left, top = (recipe.width - _COLUMNS * block) // 2, (recipe.height - _ROWS * block) // 2
    bits = np.array([number >> place & 1 for place in range(_BITS)])
    grid = np.concatenate([bits, 1 - bits]).reshape(_ROWS, _COLUMNS) * (_BRIGHT - _DARK) + _DARK
    luma[top : top + _ROWS * block, left : left + _COLUMNS * block] = np.kron(grid, np.ones((block, block), np.uint8))
    return luma
