"""Reading in the test's own process: as the isolated reader does it, without a process for each of a thousand files."""

from os import PathLike

from sfvqa.video import Clip, Fit, ReaderName, ReadOptions, SamplingOptions, VideoReader, read_clip
from sfvqa.video.readers import open_here


def read_here(
    path: str | PathLike[str],
    options: SamplingOptions | None = None,
    *,
    reader: ReaderName = ReaderName.AUTO,
    fit: Fit | None = None,
) -> Clip:
    """`read_clip` in this process."""
    return read_clip(path, options, reading=ReadOptions(reader, isolated=False), fit=fit)


def reader_here(path: str | PathLike[str], reader: ReaderName = ReaderName.AUTO) -> VideoReader:
    """`open_video` in this process."""
    return open_here(path, ReadOptions(reader))
