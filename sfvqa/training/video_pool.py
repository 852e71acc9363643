"""A window of encoded videos, synthetic and other ones, that moves on as training does. Asks nothing.

Video number n is a function of the seed and n alone, and so is the window at a step: a resumed run sees exactly what
an uninterrupted one would have seen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.training.pixels import as_filmed, training_pixels
from sfvqa.training.scenes import NUM_FRAMES, Scene, random_scene

if TYPE_CHECKING:
    from torch import Tensor

    from sfvqa.model import SlowFastForConditionalGeneration
    from sfvqa.training.other_videos import OtherVideos


@dataclass(frozen=True)
class PoolOptions:
    """How many videos wait, how many are new at each step, and which share of them are stills or other videos."""

    window: int
    fresh_per_step: int
    first_window: int
    stills: float = 0.0  # scenes in one frame, whose visual tokens are not pooled
    others: float = 0.0  # videos of another world, of any length

    @property
    def of_stills(self) -> bool:
        """Whether most of them are of one frame."""
        return self.stills > 0.5


OTHER_LENGTHS = (1, 1, 2, 3, 4, 6, 8, 12, 16, 24, 48)
USUAL_LENGTH = 0.6  # share of other videos that are as long as a scene's


@dataclass(frozen=True, eq=False)
class PooledVideo:
    """A scene, None for another video, and its visual tokens [T, h, w, D]."""

    scene: Scene | None
    visual_tokens: Tensor


class VideoPool:
    """The videos with numbers below `first_window + step * fresh_per_step`, the newest `window` of them."""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        options: PoolOptions,
        seed: tuple[int, ...],
        others: OtherVideos,
    ) -> None:
        self._model = model
        self._others = others
        self._options = options
        self._seed = seed
        self._videos: deque[PooledVideo] = deque(maxlen=options.window)
        self._next = 0

    def advance(self, step: int) -> None:
        """Make the window that belongs to `step`."""
        until = self._options.first_window + step * self._options.fresh_per_step
        self._next = max(self._next, until - self._options.window)
        while self._next < until:
            count = min(256 if self._options.of_stills else 16, until - self._next)
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
            scene, frames = self._film(np.random.default_rng([*self._seed, number]))
            scenes.append(scene)
            pixels.append(frames)
        tokens = encode_frames(self._model, torch.cat(pixels)).split([len(part) for part in pixels])
        # An only frame is not pooled; clones, because a piece would keep all of them in memory.
        pooled = [(self._model.pool(part) if len(part) > 1 else part).clone() for part in tokens]
        return [PooledVideo(scene, part) for scene, part in zip(scenes, pooled, strict=True)]

    def _film(self, rng: np.random.Generator) -> tuple[Scene | None, Tensor]:
        """A scene, or None for another video, and its pixel values."""
        size, kind = self._model.config.vision.image_size, rng.random()
        still = kind < self._options.stills
        if kind > 1 - self._options.others:
            usual = 1 if self._options.of_stills else NUM_FRAMES
            length = usual if rng.random() < USUAL_LENGTH else OTHER_LENGTHS[int(rng.integers(len(OTHER_LENGTHS)))]
            return None, as_filmed(self._others.draw(rng, size, length).frames, rng)
        scene = random_scene(rng, still=still)
        times = np.zeros(1) if still else np.arange(NUM_FRAMES, dtype=np.float64)
        return scene, training_pixels(scene, size, times, rng)


@torch.no_grad()
def encode_frames(model: SlowFastForConditionalGeneration, pixels: Tensor, chunk_size: int = 64) -> Tensor:
    """Visual tokens [T, h, w, D] before pooling, in bfloat16, which halves time and memory, on the CPU."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        parts = list(model.encode_frames(pixels.split(chunk_size)))
    return torch.cat(parts).to("cpu", torch.bfloat16)
