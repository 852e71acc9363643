"""Frames → pixel values: the reference's resize, centre crop and normalisation, bit for bit. Reads no files."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfvqa.model.config import SlowFastVisionConfig
from sfvqa.video.fitting import FitSquare


def pixel_values(frames: NDArray[np.uint8], config: SlowFastVisionConfig) -> Tensor:
    """Turn RGB frames `[T, H, W, 3]` into what the vision tower takes: float32 `[T, 3, S, S]`, S = `image_size`.

    Shortest edge to S (Pillow's bicubic, antialiased; long edge `int(S * long / short)`), centre crop, /255, mean and
    standard deviation: CLIPImageProcessor's steps in its order. Frames of S × S pixels, which were fitted while they
    were read, are only normalised.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {frames.shape}")
    size = config.image_size
    fit = FitSquare(size)
    cropped = np.stack([fit(frame) for frame in frames])
    mean, std = (np.asarray(values, dtype=np.float32) for values in (config.image_mean, config.image_std))
    scaled = (cropped * (1 / 255)).astype(np.float32)  # in float64 first: the reference's rounding
    return torch.from_numpy(np.ascontiguousarray(((scaled - mean) / std).transpose(0, 3, 1, 2)))


def pixel_value_chunks(frames: NDArray[np.uint8], config: SlowFastVisionConfig, chunk_size: int) -> Iterator[Tensor]:
    """The same, `chunk_size` frames at a time, so that memory does not grow with the video."""
    for start in range(0, len(frames), chunk_size):
        yield pixel_values(frames[start : start + chunk_size], config)
