"""From a path to a Clip: open, choose, read; memory holds the resized frames and one full frame, never the video."""

from collections.abc import Generator
from dataclasses import dataclass
from os import PathLike

import numpy as np

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Clip
from sfvqa.video.readers import Pixels, ReaderName, VideoReader, open_video
from sfvqa.video.resizing import resize_to
from sfvqa.video.sampling import SamplingOptions, Timeline, choose_frames


@dataclass(frozen=True)
class ReadProgress:
    """`done` of `total` frames are read."""

    done: int
    total: int


def read_clip(
    path: str | PathLike[str],
    options: SamplingOptions | None = None,
    *,
    reader: ReaderName = ReaderName.AUTO,
    resize: int | None = None,
) -> Clip:
    """Read the frames of one video that `options` choose (64 over the whole file by default).

    resize: pixels of the shorter edge (the reference's bicubic filter, see resizing), None for the size as stored.
    Raises VideoNotFoundError, UnreadableVideoError, RangeOutsideVideoError.
    """
    steps = read_clip_progressively(path, options, reader=reader, resize=resize)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            clip: Clip = finished.value
            return clip


def read_clip_progressively(
    path: str | PathLike[str],
    options: SamplingOptions | None = None,
    *,
    reader: ReaderName = ReaderName.AUTO,
    resize: int | None = None,
) -> Generator[ReadProgress, None, Clip]:
    """Like read_clip, as a generator of progress that returns the clip; closing it early closes the file."""
    options = options or SamplingOptions()
    with open_video(path, reader) as video:
        choice = choose_frames(Timeline(video.timestamps_seconds, fps=video.info.fps), options)
        for note in choice.notes:
            video.warn(note)
        return (yield from _read_frames(video, list(choice.indices), options, resize))


def _read_frames(
    video: VideoReader, indices: list[int], options: SamplingOptions, resize: int | None
) -> Generator[ReadProgress, None, Clip]:
    pixels: Pixels | None = None
    taken: list[int] = []
    other_sizes = 0
    yield ReadProgress(0, len(indices))
    for frame in video.read(indices, resize):
        height, width = frame.pixels.shape[:2]
        if pixels is None:
            pixels = np.empty((len(indices), height, width, 3), np.uint8)
        other_sizes += (height, width) != pixels.shape[1:3]
        pixels[len(taken)] = resize_to(frame.pixels, pixels.shape[2], pixels.shape[1])
        taken.append(frame.index)
        yield ReadProgress(len(taken), len(indices))
    if pixels is None:
        raise UnreadableVideoError(
            f"None of the {len(indices)} frames asked for of “{video.info.path}” can be decoded: they are damaged.",
            "Choose another part of the video, or copy or download it again.",
        )
    warnings = list(video.warnings)
    if other_sizes:
        warnings.append(f"The picture changes its shape: {other_sizes} frames were stretched to that of the first.")
    return Clip(
        frames=pixels[: len(taken)],
        timestamps_seconds=tuple(video.timestamps_seconds[index] for index in taken),
        indices=tuple(taken),
        video=video.info,
        strategy=options.strategy.value,
        reader=video.name.value,
        warnings=tuple(warnings),
        missing=video.missing,
    )
