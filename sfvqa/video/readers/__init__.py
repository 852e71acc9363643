"""Readers of video files behind one interface: PyAV first, OpenCV second; each library is loaded when it is used.

Every reader offers a table of presentation times, and the frames asked for, one at a time.
"""

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sfvqa.errors import DamagedVideoError, EncryptedVideoError, UnreadableVideoError, UsageError
from sfvqa.video.clip import MissingFrame, Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers.local_file import FileState, check_local_file
from sfvqa.video.subtitles import Subtitles

if TYPE_CHECKING:
    from sfvqa.video.readers.isolated import ReadingProcess, SpareProcess
    from sfvqa.video.readers.sound import Samples

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
    """How a file is read, which changes no frame. Raises UsageError when built.

    `num_threads` handles decode side by side (None: one a core). Reading that takes longer than `timeout_seconds`
    ends with an error, but only where it is `isolated` in a process of its own, which can be killed.
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

    `name` is that of a ReaderName, or says that no file is read. `timestamps_seconds` says when each frame is shown
    (increasing, in a file the first at 0); `key_frames` are the places of those that need no other one; `warnings` are
    what the user should know of the file. `open_seconds` is what opening took, `asked_for` the reader that was asked
    for, `opened_as` the file just before it was opened. A frame that turns out to be damaged is left out of `read` and
    named in `missing`; what is yielded is the very frame asked for.
    """

    name: str
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
        self.warnings = tuple(warnings)
        self.missing: tuple[MissingFrame, ...] = ()  # what the last complete `read` was asked for and could not give

    @property
    def is_unchanged(self) -> bool:
        """Whether the path still means the file that was opened, and that was not written to since."""
        with suppress(UnreadableVideoError):
            return self.opened_as is not None and not self.opened_as.check()
        return False

    def read(self, indices: Sequence[int], fit: Fit | None = None) -> Iterator[Frame]:
        """Yield the frames at `indices` (sorted, unique) in order, each fitted as soon as it is converted.

        fit: what is done to each, None for the size as shown. Damaged frames are left out.
        """
        wanted, times = list(indices), self.timestamps_seconds
        if wanted != sorted(set(wanted)) or (wanted and not 0 <= wanted[0] <= wanted[-1] < len(times)):
            raise ValueError(f"indices are sorted, unique and below {len(times)}, got {wanted}")
        missing = dict.fromkeys(wanted, NO_PICTURE)
        with closing(self.pictures(wanted, fit or _as_stored)) as pictures:
            for index, picture in pictures:
                if isinstance(picture, str):
                    missing[index] = picture
                else:
                    del missing[index]
                    yield Frame(index, times[index], picture)
        self.missing = tuple(MissingFrame(index, times[index], reason) for index, reason in missing.items())

    @abstractmethod
    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """Yield (index, fitted pixels) of every sound frame in order; a damaged one gives its reason, or nothing."""

    def subtitles(self) -> Subtitles:
        """The lines of the file's own text track; none, and a warning, where there is none or no way to read it."""
        return Subtitles((), "none", (f"The reader “{self.name}” reads no subtitles: the model gets none.",))

    def sound(self) -> "Generator[tuple[float, Samples] | str]":
        """Yield (start in seconds, samples) of the sound, and warnings, as `read_sound` does; a warning for none."""
        yield f"The reader “{self.name}” reads no sound: nothing is heard."

    def copy_part(self, target: Path, format: str, start_seconds: float, end_seconds: float) -> float:  # noqa: ARG002
        """Copy a part of the video, with its sound, into the file `target`, in a `format` of CLIP_FORMATS.

        It begins at the last key frame before that, and returned is how many seconds before. Raises
        UnreadableVideoError for what cannot be copied, and SfvqaError where the disk is full.
        """
        raise UnreadableVideoError(
            f"No clip can be copied out of “{self.info.path}”, which the reader “{self.name}” reads.",
            "Leave out the clips, or convert it to a video file.",
        )

    def cancel(self) -> None:  # noqa: B027  native code can only be ended with its process
        """End what another thread is doing with this reader, which gets an error; nothing if reading is not isolated.

        Afterwards it can be used again.
        """

    def allow_time(self) -> None:  # noqa: B027  only where reading is isolated is there a limit
        """Allow what is read from now on as much time as reading the whole video had."""

    def close(self) -> None:  # noqa: B027  many readers open the file only while they read
        """Close the file; safe to call twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_stored(pixels: Pixels) -> Pixels:
    """The fit that changes nothing; a name at module level, as another process needs it."""
    return pixels


class VideoBeingOpened:
    """A video that is being opened in a process of its own, if reading is isolated, while this one does something else.

    Raises VideoNotFoundError or UnreadableVideoError when built, where a look at the file tells.
    """

    def __init__(
        self, path: str | PathLike[str], options: ReadOptions | None = None, spare: "SpareProcess | None" = None
    ) -> None:
        """Start the process, or take the spare one."""
        began = time.perf_counter()
        self._options = options or ReadOptions()
        self._state = FileState.of(check_local_file(path))
        self._process: ReadingProcess | None = None
        if self._options.isolated:
            from sfvqa.video.readers import isolated

            self._process = isolated.ReadingProcess(self._state, self._options, spare)
        self._seconds = time.perf_counter() - began

    def reader(self) -> VideoReader:
        """Wait until it is open; what opening it took is what was waited for. Errors as `open_video`."""
        began = time.perf_counter()
        if self._process is None:
            reader = open_here(self._state.path, self._options)
        else:
            from sfvqa.video.readers.isolated import IsolatedReader

            reader = IsolatedReader(self._process)
        reader.opened_as, reader.asked_for = self._state, self._options.reader
        reader.open_seconds = self._seconds + time.perf_counter() - began
        return reader

    def cancel(self) -> None:
        """End what another thread is doing with it or its reader, which gets an error; nothing if not isolated."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process, and with it the reader; safe to call twice."""
        if self._process is not None:
            self._process.close()


def open_video(path: str | PathLike[str], options: ReadOptions | None = None) -> VideoReader:
    """Open a local video file, or a folder of images; use the result as a context manager.

    What is a picture by its content has one reader: Pillow, or PyAV for GIF and APNG. Else AUTO reads with PyAV and,
    what that cannot open, with OpenCV, and says so in the reader's warnings.
    Raises VideoNotFoundError, UnreadableVideoError or, where reading is isolated, ReadTimeoutError.
    """
    return VideoBeingOpened(path, options).reader()


def open_here(path: str | PathLike[str], options: ReadOptions) -> VideoReader:
    """Open a local video file in this process, where nothing can end native code that hangs."""
    from sfvqa.video.readers.images import open_pictures

    file = check_local_file(path)
    if pictures := open_pictures(file):
        if options.reader in (ReaderName.AUTO, pictures.name):
            return pictures
        pictures.close()
        raise UnreadableVideoError(
            f"“{file}” holds pictures ({pictures.info.codec}), which the reader “{options.reader}” does not read.",
            f"Leave out --reader, or use --reader {pictures.name}.",
        )
    if options.reader is ReaderName.PILLOW:
        raise UnreadableVideoError(
            f"“{file}” cannot be read as a picture, and the reader “pillow” reads nothing else.",
            "Leave out --reader.",
        )
    return _open_with_opencv(file) if options.reader is ReaderName.OPENCV else _open_with_pyav(file, options)


def _open_with_pyav(file: Path, options: ReadOptions) -> VideoReader:
    """With AUTO, OpenCV steps in where PyAV finds no video; what is damaged or encrypted it would show repaired."""
    from sfvqa.video.readers.pyav import PyAVReader

    try:
        return PyAVReader(file, options.num_threads)
    except (DamagedVideoError, EncryptedVideoError):
        raise
    except UnreadableVideoError as error:
        if options.reader is ReaderName.PYAV:
            raise
        try:
            fallback = _open_with_opencv(file)
        except UnreadableVideoError:
            raise error from None
    fallback.warnings += (
        "PyAV could not read this file, OpenCV could: damaged frames cannot be told from intact ones.",
    )
    return fallback


def _open_with_opencv(file: Path) -> VideoReader:
    from sfvqa.video.readers.opencv import OpenCVReader

    return OpenCVReader(file)


# --- What readers share ---


def nothing_decodable(path: Path) -> DamagedVideoError:
    """The error for a file of which no frame can be vouched for."""
    return DamagedVideoError(
        f"No frame of “{path}” can be decoded: it is damaged or cut off.", "Copy or download it again."
    )


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
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- The libraries, and the FFmpeg inside each: raises what importing them raises ---


def pyav_version() -> dict[str, str]:
    """Of PyAV and its FFmpeg."""
    import av
    from av import _core

    versions = {name: _core.library_meta[name]["version"] for name in ("libavcodec", "libavformat")}
    return {"version": av.__version__, "ffmpeg": ", ".join(f"{n} {'.'.join(map(str, v))}" for n, v in versions.items())}


def opencv_version() -> dict[str, str]:
    """Of OpenCV and its FFmpeg, by what OpenCV says of its build."""
    import cv2

    found = re.findall(r"^\s*(avcodec|avformat):\s+\w+ \(([\d.]+)\)", cv2.getBuildInformation(), re.MULTILINE)
    return {"version": cv2.__version__, "ffmpeg": ", ".join(f"lib{n} {v}" for n, v in found) or "none"}


def pillow_version() -> dict[str, str]:
    """Of Pillow."""
    import PIL

    return {"version": PIL.__version__}
