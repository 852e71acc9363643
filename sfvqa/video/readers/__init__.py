"""Readers of video files behind one interface: PyAV first, OpenCV second; each library is loaded when it is used."""

import time
from os import PathLike
from pathlib import Path

from sfvqa.errors import DamagedVideoError, EncryptedVideoError, UnreadableVideoError
from sfvqa.video.readers.file_state import FileState
from sfvqa.video.readers.interface import Frame, ReaderName, ReadOptions, VideoReader
from sfvqa.video.readers.local_file import check_local_file

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
    file = check_local_file(path)
    pictures = _open_pictures(file)
    if pictures is not None or options.reader is ReaderName.PILLOW:
        return _chosen(pictures, options.reader, file)
    if options.reader is ReaderName.OPENCV:
        return _open_with_opencv(file)
    try:
        return _open_with_pyav(file, options.num_threads)
    except (DamagedVideoError, EncryptedVideoError):
        raise  # OpenCV would show its repairs for frames
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


def _open_pictures(file: Path) -> VideoReader | None:
    from sfvqa.video.readers.image_files import open_pictures

    return open_pictures(file)


def _chosen(pictures: VideoReader | None, reader: ReaderName, file: Path) -> VideoReader:
    """The reader of pictures, if the one asked for is none other."""
    if pictures is None:
        raise UnreadableVideoError(
            f"“{file}” cannot be read as a picture, and the reader “pillow” reads nothing else.",
            "Leave the choice of reader.",
        )
    if reader not in (ReaderName.AUTO, pictures.name):
        pictures.close()
        raise UnreadableVideoError(
            f"“{file}” holds pictures ({pictures.info.codec}), which the reader “{reader}” does not read.",
            f"Leave the choice of reader, or choose “{pictures.name}”.",
        )
    return pictures


def _open_with_pyav(file: Path, num_threads: int | None) -> VideoReader:
    from sfvqa.video.readers.pyav import PyAVReader

    return PyAVReader(file, num_threads)


def _open_with_opencv(file: Path) -> VideoReader:
    from sfvqa.video.readers.opencv import OpenCVReader

    return OpenCVReader(file)
