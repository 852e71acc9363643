"""Readers of video files behind one interface: PyAV first, OpenCV second; each library is loaded when it is used."""

import time
from os import PathLike
from pathlib import Path

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.interface import Frame, ReaderName, ReadOptions, VideoReader
from sfvqa.video.readers.local_file import check_local_file

__all__ = ["Frame", "ReadOptions", "ReaderName", "VideoReader", "open_here", "open_video"]


def open_video(path: str | PathLike[str], options: ReadOptions | None = None) -> VideoReader:
    """Open a local video file; use the result as a context manager.

    AUTO reads with PyAV and, where that finds nothing to read, with OpenCV, and says so in the reader's warnings.
    Raises VideoNotFoundError, UnreadableVideoError or, where reading is isolated, ReadTimeoutError.
    """
    options = options or ReadOptions()
    began = time.perf_counter()
    if options.isolated:
        from sfvqa.video.readers.isolated import IsolatedReader

        reader: VideoReader = IsolatedReader(check_local_file(path), options)
    else:
        reader = open_here(path, options)
    reader.open_seconds = time.perf_counter() - began
    return reader


def open_here(path: str | PathLike[str], options: ReadOptions) -> VideoReader:
    """Open a local video file in this process, where nothing can end native code that hangs."""
    file = check_local_file(path)
    if options.reader is ReaderName.OPENCV:
        return _open_with_opencv(file)
    try:
        return _open_with_pyav(file, options.num_threads)
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


def _open_with_pyav(file: Path, num_threads: int | None) -> VideoReader:
    from sfvqa.video.readers.pyav import PyAVReader

    return PyAVReader(file, num_threads)


def _open_with_opencv(file: Path) -> VideoReader:
    from sfvqa.video.readers.opencv import OpenCVReader

    return OpenCVReader(file)
