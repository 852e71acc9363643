"""A window of encoded synthetic videos that moves on as training does. Holds visual tokens, asks nothing.

Video number n is a function of the seed and n alone, and so is the window at a step: a resumed run sees exactly what
an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.training.pixels import training_pixels
from sfvqa.training.scenes import NUM_FRAMES, Scene, random_scene

if TYPE_CHECKING:
    from torch import Tensor

    from sfvqa.model import SlowFastForConditionalGeneration


@dataclass(frozen=True)
class PoolOptions:
    """How many videos wait, how many are new at each step, and whether they are stills of one frame."""

    window: int
    fresh_per_step: int
    first_window: int
    still: bool


@dataclass(frozen=True, eq=False)
class PooledVideo:
    """A scene and its visual tokens [T, h, w, D]."""

    scene: Scene
    visual_tokens: Tensor


class VideoPool:
    """The videos with numbers below `first_window + step * fresh_per_step`, the newest `window` of them."""

    def __init__(self, model: SlowFastForConditionalGeneration, options: PoolOptions, seed: tuple[int, ...]) -> None:
        self._model = model
        self._options = options
        self._seed = seed
        self._videos: deque[PooledVideo] = deque(maxlen=options.window)
        self._next = 0

    def advance(self, step: int) -> None:
        """Make the window that belongs to `step`."""
        until = self._options.first_window + step * self._options.fresh_per_step
        self._next = max(self._next, until - self._options.window)
        while self._next < until:
            count = min(16 if not self._options.still else 256, until - self._next)
            self._videos.extend(self._encode(range(self._next, self._next + count)))
            self._next += count

    def draw(self, rng: np.random.Generator, count: int) -> list[PooledVideo]:
        """`count` videos of the window, the newest ones among them."""
        newest = min(self._options.fresh_per_step, count, len(self._videos))
        fresh = [self._videos[-1 - number] for number in range(newest)]
        return fresh + [self._videos[int(i)] for i in rng.integers(0, len(self._videos), size=count - newest)]

    def _encode(self, numbers: range) -> list[PooledVideo]:
        scenes, pixels = [], []
        for number in numbers:
            rng = np.random.default_rng([*self._seed, number])
            scene = random_scene(rng, still=self._options.still)
            times = np.zeros(1) if self._options.still else np.arange(NUM_FRAMES, dtype=np.float64)
            scenes.append(scene)
            pixels.append(training_pixels(scene, self._model.config.vision.image_size, times, rng))
        tokens = encode_frames(self._model, torch.cat(pixels))
        frames = tokens.split([len(part) for part in pixels])
        return [PooledVideo(scene, part.clone()) for scene, part in zip(scenes, frames, strict=True)]


@torch.no_grad()
def encode_frames(model: SlowFastForConditionalGeneration, pixels: Tensor, chunk_size: int = 64) -> Tensor:
    """Visual tokens [T, h, w, D] in bfloat16, which halves both the time and the memory, on the CPU."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        parts = [model.pool(part) for part in model.encode_frames(pixels.split(chunk_size))]
    return torch.cat(parts).to("cpu", torch.bfloat16)
