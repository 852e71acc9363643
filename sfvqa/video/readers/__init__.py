"""Readers of video files behind one interface: PyAV first, OpenCV second; each library is loaded when it is used."""

import re
import time
from os import PathLike
from pathlib import Path

from sfvqa.errors import DamagedVideoError, EncryptedVideoError, UnreadableVideoError
from sfvqa.video.readers.interface import Frame, ReaderName, ReadOptions, VideoReader
from sfvqa.video.readers.local_file import FileState, check_local_file

__all__ = ["Frame", "ReadOptions", "ReaderName", "VideoReader", "open_here", "open_video"]


def open_video(path: str | PathLike[str], options: ReadOptions | None = None) -> VideoReader:
    """Open a local video file, or a folder of images; use the result as a context manager.

    What is a picture by its content has one reader: Pillow, or PyAV for GIF and APNG. Else AUTO reads with PyAV and,
    what that cannot open, with OpenCV, and says so in the reader's warnings.
    Raises VideoNotFoundError, UnreadableVideoError or, where reading is isolated, ReadTimeoutError.
    """
    options = options or ReadOptions()
    began = time.perf_counter()
    file = check_local_file(path)
    state = FileState.of(file)
    if options.isolated:
        from sfvqa.video.readers.isolated import IsolatedReader

        reader: VideoReader = IsolatedReader(file, options)
    else:
        reader = open_here(file, options)
    reader.opened_as, reader.asked_for = state, options.reader
    reader.open_seconds = time.perf_counter() - began
    return reader


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
            f"Leave the choice of reader, or choose “{pictures.name}”.",
        )
    if options.reader is ReaderName.PILLOW:
        raise UnreadableVideoError(
            f"“{file}” cannot be read as a picture, and the reader “pillow” reads nothing else.",
            "Leave the choice of reader.",
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
    fallback.warn(
        "PyAV could not read this file, OpenCV could: frames damaged in the file cannot be told from sound ones."
    )
    return fallback


def _open_with_opencv(file: Path) -> VideoReader:
    from sfvqa.video.readers.opencv import OpenCVReader

    return OpenCVReader(file)


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
