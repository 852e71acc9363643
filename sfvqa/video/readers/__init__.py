"""Readers of video files behind one interface: PyAV first, OpenCV second; each library is loaded when it is used."""

from os import PathLike
from pathlib import Path

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.interface import Frame, ReaderName, ReadOptions, VideoReader
from sfvqa.video.readers.local_file import check_local_file

__all__ = ["Frame", "ReadOptions", "ReaderName", "VideoReader", "open_video"]


def open_video(path: str | PathLike[str], reader: ReaderName = ReaderName.AUTO) -> VideoReader:
    """Open a local video file; use the result as a context manager.

    AUTO reads with PyAV and, where that finds nothing to read, with OpenCV, and says so in the reader's warnings.
    Raises VideoNotFoundError or UnreadableVideoError.
    """
    file = check_local_file(path)
    if reader is ReaderName.OPENCV:
        return _open_with_opencv(file)
    try:
        return _open_with_pyav(file)
    except UnreadableVideoError as error:
        if reader is ReaderName.PYAV:
            raise
        try:
            fallback = _open_with_opencv(file)
        except UnreadableVideoError:
            raise error from None
    fallback.warn(
        "PyAV could not read this file, OpenCV could: frames damaged in the file cannot be told from sound ones."
    )
    return fallback


def _open_with_pyav(file: Path) -> VideoReader:
    from sfvqa.video.readers.pyav import PyAVReader

    return PyAVReader(file)


def _open_with_opencv(file: Path) -> VideoReader:
    from sfvqa.video.readers.opencv import OpenCVReader

    return OpenCVReader(file)
