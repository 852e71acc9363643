"""What a video file holds (VideoInfo) and the frames taken from it (Clip)."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""One picture [H, W, 3], uint8 RGB."""

CHUNK_SIZE = 8
"""Frames that are read, and then encoded, at a time: bounds the memory, changes nothing else."""

Box = tuple[float, float, float, float]
"""A part of a picture in its pixels: left, upper, right, lower."""


@dataclass(frozen=True)
class VideoInfo:
    """One video file, as far as it can be read.

    `num_frames` counts the frames that can be asked for (fewer than the container claims if the file is cut off),
    `duration_seconds` runs from the first of them to the end of the last one, `fps` is their mean rate (0 if unknown).
    `width` and `height` are those of the picture as shown: with square pixels, after `rotation` (degrees
    counter-clockwise, 0/90/180/270).
    """

    path: Path
    num_frames: int
    fps: float
    duration_seconds: float
    width: int
    height: int
    codec: str
    rotation: int

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.width < 1 or self.height < 1:
            raise ValueError(
                f"a video has frames and pixels, got {self.num_frames} frames of {self.width}×{self.height}"
            )
        if self.fps < 0 or self.duration_seconds < 0:
            raise ValueError(f"rate and duration are not negative, got {self.fps} fps and {self.duration_seconds} s")
        if self.rotation not in (0, 90, 180, 270):
            raise ValueError(f"rotation is 0, 90, 180 or 270 degrees, got {self.rotation}")


@dataclass(frozen=True)
class MissingFrame:
    """A frame that was asked for and could not be read: its place in the file, its time, and why (a clause)."""

    index: int
    timestamp_seconds: float
    reason: str


@dataclass(frozen=True, eq=False)
class ClipFacts:
    """All that a Clip says of itself, without its frames.

    `timestamps_seconds` and `indices` [T] say when each is shown (first frame of the file = 0 s) and which place it has
    in the file; `missing` are those that were chosen but could not be read.
    """

    timestamps_seconds: tuple[float, ...]
    indices: tuple[int, ...]
    video: VideoInfo
    strategy: str
    reader: str
    warnings: tuple[str, ...] = ()
    missing: tuple[MissingFrame, ...] = ()


@dataclass(frozen=True, eq=False)
class Clip(ClipFacts):
    """The sampled frames of one video: `frames` [T, H, W, 3] uint8 RGB."""

    frames: NDArray[np.uint8] = field(kw_only=True)

    def __post_init__(self) -> None:
        shape = self.frames.shape
        if len(shape) != 4 or shape[0] < 1 or shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise ValueError(f"frames are [T, H, W, 3] uint8 with T ≥ 1, got {list(shape)} {self.frames.dtype}")
        if not len(self.timestamps_seconds) == len(self.indices) == shape[0]:
            raise ValueError(
                f"frames {list(shape)} need as many timestamps and indices, "
                f"got {len(self.timestamps_seconds)} and {len(self.indices)}"
            )
        if list(self.indices) != sorted(set(self.indices)):
            raise ValueError(f"indices are sorted and unique, got {self.indices}")
