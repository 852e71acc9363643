"""Rendered frames become pixel values for the vision tower, roughened like frames that went through a video file."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.model.config import CLIP_MEAN, CLIP_STD
from sfvqa.training.benchmark.compression import compress
from sfvqa.training.render import render_float

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from sfvqa.training.scenes import Scene

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
