"""What every reader offers: a table of presentation times, and the frames asked for, one at a time."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sfvqa.video.clip import VideoInfo
from sfvqa.video.resizing import resize_shortest_edge
from sfvqa.video.sampling import format_time

Pixels = NDArray[np.uint8]
"""One picture [H, W, 3], uint8 RGB."""

DEEPEST_REORDERING = 16
"""Frames between decoding order and the order they are shown in, at most (H.264)."""

_TIMES_NAMED = 4  # how many of the missing frames a warning names


class ReaderName(StrEnum):
    """Which library reads the file; AUTO is Pillow for pictures, else PyAV, and OpenCV for what PyAV cannot open."""

    AUTO = "auto"
    PYAV = "pyav"
    OPENCV = "opencv"
    PILLOW = "pillow"


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its place in the file, when it is shown (seconds from the first frame), pixels [H, W, 3] uint8 RGB."""

    index: int
    timestamp_seconds: float
    pixels: Pixels


class VideoReader(ABC):
    """One open video file; a context manager, used by one thread.

    `timestamps_seconds` has one entry a frame that can be asked for: when it is shown, from the first frame = 0,
    increasing. A frame that turns out to be damaged is left out of `read` and counted in `missing` and `warnings`;
    what is yielded is the very frame asked for.
    """

    name: ReaderName

    def __init__(self, info: VideoInfo, timestamps_seconds: tuple[float, ...], warnings: Sequence[str]) -> None:
        self.info = info
        self.timestamps_seconds = timestamps_seconds
        self._warnings = list(warnings)
        self._missing: tuple[int, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, a sentence or two each; grows while frames are read."""
        return tuple(self._warnings)

    def warn(self, sentence: str) -> None:
        """Add something that the user should know."""
        self._warnings.append(sentence)

    @property
    def missing(self) -> tuple[int, ...]:
        """Indices that the last complete `read` was asked for and could not give."""
        return self._missing

    def read(self, indices: Sequence[int], shortest_edge: int | None = None) -> Iterator[Frame]:
        """Yield the frames at `indices` (sorted, unique) in order, each resized as soon as it is converted.

        shortest_edge: pixels of the shorter edge, None for the size as stored. Damaged frames are left out.
        """
        wanted = list(indices)
        if wanted != sorted(set(wanted)) or (
            wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.timestamps_seconds)
        ):
            raise ValueError(f"indices are sorted, unique and below {len(self.timestamps_seconds)}, got {wanted}")
        missing = set(wanted)
        for index, pixels in self._read_pixels(wanted):
            missing.discard(index)
            small = pixels if shortest_edge is None else resize_shortest_edge(pixels, shortest_edge)
            yield Frame(index, self.timestamps_seconds[index], small)
        self._missing = tuple(sorted(missing))
        if missing:
            self.warn(self._missing_warning(len(wanted)))

    def _missing_warning(self, num_wanted: int) -> str:
        times = [format_time(self.timestamps_seconds[index]) for index in self._missing]
        named = ", ".join(times[:_TIMES_NAMED]) + (", …" if len(times) > _TIMES_NAMED else "")
        count = f"{len(times)} of the {num_wanted} frames asked for"
        return f"{count} could not be decoded without damage and were left out (at {named})."

    @abstractmethod
    def _read_pixels(self, indices: list[int]) -> Iterator[tuple[int, Pixels]]:
        """Yield (index, full-size pixels) in order, leaving out what cannot be vouched for."""

    @abstractmethod
    def close(self) -> None:
        """Close the file; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def early_end_warning(claimed_seconds: float, readable_seconds: float) -> str:
    """The sentence for a file that ends before its time, with how much of it is missing."""
    missing = max(claimed_seconds - readable_seconds, 0.0)
    if missing < 0.05:
        return f"The file is damaged at its end: only its first {readable_seconds:.1f} s are used."
    return (
        f"The file ends early: it claims {claimed_seconds:.1f} s, {readable_seconds:.1f} s of them can be read, "
        f"{missing:.1f} s are missing. Frames are taken from what can be read."
    )
