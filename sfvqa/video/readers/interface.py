"""What every reader offers: a table of presentation times, and the frames asked for, one at a time."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from sfvqa.errors import UsageError
from sfvqa.video.clip import MissingFrame, Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers.local_file import FileState
from sfvqa.video.subtitles import Subtitles

DEEPEST_REORDERING = 16
"""Frames between decoding order and the order they are shown in, at most (H.264)."""
NO_PICTURE = "the decoder gave no picture for it"
"""Why a frame is missing, if nothing else is known."""

_LONGEST_TIMEOUT_SECONDS = 365 * 24 * 3600


class ReaderName(StrEnum):
    """Which library reads the file; AUTO: Pillow for pictures, else PyAV, and OpenCV for what PyAV cannot open."""

    AUTO = "auto"
    PYAV = "pyav"
    OPENCV = "opencv"
    PILLOW = "pillow"


@dataclass(frozen=True)
class ReadOptions:
    """How a file is read, which changes no frame.

    `num_threads` handles decode side by side (None: one a core). Reading that takes longer than `timeout_seconds`
    ends with an error; that can be promised only where it is `isolated` in a process of its own, which can be killed.
    Raises UsageError when built.
    """

    reader: ReaderName = ReaderName.AUTO
    num_threads: int | None = None
    timeout_seconds: float = 600.0
    isolated: bool = True

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise UsageError(f"{self.num_threads} threads were asked for to read.", "Give at least one.")
        if not 0 < self.timeout_seconds <= _LONGEST_TIMEOUT_SECONDS:
            raise UsageError(
                f"{self.timeout_seconds:g} seconds were allowed for reading.",
                f"Allow more than 0 and at most {_LONGEST_TIMEOUT_SECONDS:,}, a year.",
            )


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame: its place in the file, when it is shown (seconds from the first frame), pixels [H, W, 3] uint8 RGB."""

    index: int
    timestamp_seconds: float
    pixels: Pixels


class VideoReader(ABC):
    """One open video file; a context manager, used by one thread at a time.

    `timestamps_seconds` says when each frame is shown (increasing, the first at 0); `key_frames` are the places of
    those that need no other one. `open_seconds` is what opening took, `asked_for` the reader that was asked for,
    `opened_as` the file just before it was opened. A frame that turns out to be damaged is left out of `read` and named
    in `missing`; what is yielded is the very frame asked for.
    """

    name: ReaderName
    open_seconds = 0.0
    asked_for = ReaderName.AUTO
    opened_as: FileState | None = None

    def __init__(
        self,
        info: VideoInfo,
        timestamps_seconds: tuple[float, ...],
        key_frames: tuple[int, ...],
        warnings: Sequence[str],
    ) -> None:
        self.info = info
        self.timestamps_seconds = timestamps_seconds
        self.key_frames = key_frames
        self._warnings = list(warnings)
        self.missing: tuple[MissingFrame, ...] = ()  # what the last complete `read` was asked for and could not give

    @property
    def is_unchanged(self) -> bool:
        """Whether the path still means the file that was opened, and that was not written to since."""
        if self.opened_as is None:
            return False
        try:
            return FileState.of(self.opened_as.path) == self.opened_as
        except OSError:
            return False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the file, a sentence or two each."""
        return tuple(self._warnings)

    def warn(self, sentence: str) -> None:
        """Add something that the user should know."""
        self._warnings.append(sentence)

    def read(self, indices: Sequence[int], fit: Fit | None = None) -> Iterator[Frame]:
        """Yield the frames at `indices` (sorted, unique) in order, each fitted as soon as it is converted.

        fit: what is done to each, None for the size as shown. Damaged frames are left out.
        """
        wanted = list(indices)
        if wanted != sorted(set(wanted)) or (
            wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.timestamps_seconds)
        ):
            raise ValueError(f"indices are sorted, unique and below {len(self.timestamps_seconds)}, got {wanted}")
        missing = dict.fromkeys(wanted, NO_PICTURE)
        with closing(self.pictures(wanted, fit or _as_stored)) as pictures:
            for index, picture in pictures:
                if isinstance(picture, str):
                    missing[index] = picture
                else:
                    del missing[index]
                    yield Frame(index, self.timestamps_seconds[index], picture)
        times = self.timestamps_seconds
        self.missing = tuple(MissingFrame(index, times[index], reason) for index, reason in missing.items())

    @abstractmethod
    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """Yield (index, fitted pixels) of every sound frame in order; a damaged one gives its reason, or nothing."""

    def subtitles(self) -> Subtitles:
        """The lines of the file's own text track; none, and a warning, where there is none or no way to read it."""
        return Subtitles((), "none", (f"The reader “{self.name}” reads no subtitles: the model gets none.",))

    def cancel(self) -> None:  # noqa: B027  native code can only be ended with its process
        """End what another thread is doing with this reader, which gets an error; nothing if reading is not isolated.

        Afterwards it can be used again.
        """

    def close(self) -> None:  # noqa: B027  many readers open the file only while they read
        """Close the file; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _as_stored(pixels: Pixels) -> Pixels:
    """The fit that changes nothing."""
    return pixels


def early_end_warning(claimed_seconds: float, readable_seconds: float) -> str:
    """The sentence for a file that ends before its time, with how much of it is missing."""
    missing = max(claimed_seconds - readable_seconds, 0.0)
    if missing < 0.05:
        return f"The file is damaged at its end: only its first {readable_seconds:.1f} s are used."
    return (
        f"The file ends early: it claims {claimed_seconds:.1f} s, {readable_seconds:.1f} s of them can be read, "
        f"{missing:.1f} s are missing. Frames are taken from what can be read."
    )


def num_available_cores() -> int:
    """Cores that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
