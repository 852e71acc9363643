"""From a path to a Clip: open, choose, read; memory holds the resized frames and one full frame, never the video."""

from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from os import PathLike

import numpy as np

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Clip, ClipFacts, MissingFrame, Pixels
from sfvqa.video.fitting import Fit, between_bars, resize_to
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.sampling import FrameChoice, SamplingOptions, SamplingStrategy, Timeline, choose_frames, format_time
from sfvqa.video.scenes import MAX_COMPARED_FRAMES, THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH, find_cuts, frames_to_compare
from sfvqa.wording import first_few, plural


class ReadStage(StrEnum):
    """What frames are read for."""

    SEARCH = "search"  # to find the cuts between scenes
    READ = "read"  # to be looked at


@dataclass(frozen=True)
class ReadProgress:
    """`done` of `total` frames are read in this stage."""

    done: int
    total: int
    stage: ReadStage = ReadStage.READ


@dataclass(frozen=True, eq=False)
class ReadStep:
    """How far reading is, and the `pixels` [H, W, 3] of the frame that came, if this step brought one to look at."""

    progress: ReadProgress
    pixels: Pixels | None = None


def read_clip(
    video: str | PathLike[str] | VideoReader,
    options: SamplingOptions | None = None,
    *,
    reading: ReadOptions | None = None,
    fit: Fit | None = None,
) -> Clip:
    """Read the frames of one video that `options` choose (64 over the whole file by default).

    One that is open already stays open.

    fit: what is done to each frame, None for the size as shown.
    Raises VideoNotFoundError, UnreadableVideoError, RangeOutsideVideoError.
    """
    steps = read_clip_progressively(video, options, reading=reading, fit=fit)
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            clip: Clip = finished.value
            return clip


def read_clip_progressively(
    video: str | PathLike[str] | VideoReader,
    options: SamplingOptions | None = None,
    *,
    reading: ReadOptions | None = None,
    fit: Fit | None = None,
) -> Generator[ReadProgress, None, Clip]:
    """Like read_clip, as a generator of progress that returns the clip; closing it early closes the file.

    A video that is open already is read with its own options, and stays open.
    """
    pixels: Pixels | None = None
    with closing(read_frame_by_frame(video, options, reading=reading, fit=fit)) as steps:
        while True:
            try:
                step = next(steps)
            except StopIteration as finished:
                facts: ClipFacts = finished.value
                break
            if step.pixels is not None:
                if pixels is None:
                    pixels = np.empty((step.progress.total, *step.pixels.shape), np.uint8)
                pixels[step.progress.done - 1] = step.pixels
            yield step.progress
    assert pixels is not None  # of nothing there are no facts
    return Clip(frames=pixels[: len(facts.indices)], **vars(facts))


def read_frame_by_frame(
    video: str | PathLike[str] | VideoReader,
    options: SamplingOptions | None = None,
    *,
    reading: ReadOptions | None = None,
    fit: Fit | None = None,
) -> Generator[ReadStep, None, ClipFacts]:
    """Like read_clip_progressively, but gives each frame as soon as it is read, and keeps none of them.

    Every frame has the shape of the first. Whoever runs the generator runs the reader: one thread at a time.
    """
    options = options or SamplingOptions()
    with nullcontext(video) if isinstance(video, VideoReader) else open_video(video, reading) as opened:
        timeline = timeline_of(opened)
        if options.strategy is SamplingStrategy.SCENE:
            timeline = replace(timeline, cuts=(yield from _find_cuts(opened, timeline, options)))
        choice = choose_frames(timeline, options)
        return (yield from _read_frames(opened, choice, options, fit))


def choose_unread(video: VideoReader, options: SamplingOptions) -> FrameChoice:
    """The frames that would be read, without reading any: with SCENE only their number is right, or too high.

    Raises RangeOutsideVideoError.
    """
    if options.strategy is SamplingStrategy.SCENE:
        options = replace(options, strategy=SamplingStrategy.UNIFORM)
    return choose_frames(timeline_of(video), options)


def timeline_of(video: VideoReader) -> Timeline:
    """When each frame of an open video is shown, with all that choosing frames needs but the cuts."""
    return Timeline(
        video.timestamps_seconds,
        key_frames=video.key_frames,
        fps=video.info.fps,
        duration_seconds=video.info.duration_seconds,
    )


def find_cuts_in(video: VideoReader, options: SamplingOptions) -> tuple[int, ...]:
    """The cuts of a range as exactly as `video.scenes` tells them, however long it is: frames that begin a scene."""
    timeline = timeline_of(video)
    steps = _find_cuts(video, timeline, options, max_frames=max(len(timeline.timestamps_seconds), 2))
    while True:
        try:
            next(steps)
        except StopIteration as end:
            cuts: tuple[int, ...] = end.value
            return cuts


def _find_cuts(
    video: VideoReader, timeline: Timeline, options: SamplingOptions, *, max_frames: int = MAX_COMPARED_FRAMES
) -> Generator[ReadStep, None, tuple[int, ...]]:
    """Compare thumbnails of some frames of the range (video.scenes says which, and how exact that is)."""
    compared = frames_to_compare(timeline, options, max_frames=max_frames)
    thumbnails: list[Pixels] = []
    indices: list[int] = []
    yield ReadStep(ReadProgress(0, len(compared), ReadStage.SEARCH))
    for frame in video.read(compared, partial(resize_to, width=THUMBNAIL_WIDTH, height=THUMBNAIL_HEIGHT)):
        thumbnails.append(frame.pixels.mean(axis=2).astype(np.uint8))
        indices.append(frame.index)
        yield ReadStep(ReadProgress(len(indices), len(compared), ReadStage.SEARCH))
    return find_cuts(np.stack(thumbnails), indices) if thumbnails else ()


def _read_frames(
    video: VideoReader, choice: FrameChoice, options: SamplingOptions, fit: Fit | None
) -> Generator[ReadStep, None, ClipFacts]:
    indices = choice.indices
    shape: tuple[int, int] | None = None
    taken: list[int] = []
    other_sizes = 0
    yield ReadStep(ReadProgress(0, len(indices)))
    for frame in video.read(indices, fit):
        height, width = frame.pixels.shape[:2]
        shape = shape or (height, width)
        other_sizes += (height, width) != shape
        taken.append(frame.index)
        pixels = between_bars(frame.pixels, shape[1], shape[0])
        yield ReadStep(ReadProgress(len(taken), len(indices)), pixels)
    changes = [] if video.opened_as is None else video.opened_as.check()  # before what was read of it is blamed
    if not taken:
        raise UnreadableVideoError(
            f"None of the {plural(len(indices), 'frame')} asked for of “{video.info.path}” can be decoded: "
            f"{video.missing[0].reason}.",
            "Choose another part of the video, or copy or download it again.",
        )
    warnings = [*video.warnings, *choice.notes, *changes]
    if video.missing:
        warnings.append(_missing_warning(video.missing, len(indices)))
    if other_sizes:
        frames = "1 frame was" if other_sizes == 1 else f"{other_sizes} frames were"
        warnings.append(
            f"The picture changes its size or shape: {frames} fitted, uncropped, into the shape of the first."
        )
    return ClipFacts(
        timestamps_seconds=tuple(video.timestamps_seconds[index] for index in taken),
        indices=tuple(taken),
        video=video.info,
        strategy=options.strategy.value,
        reader=str(video.name),
        warnings=tuple(warnings),
        missing=video.missing,
    )


def _missing_warning(missing: Sequence[MissingFrame], num_wanted: int) -> str:
    times = first_few([format_time(frame.timestamp_seconds) for frame in missing])
    count = f"{len(missing)} of the {plural(num_wanted, 'frame')} asked for"
    were = "was" if len(missing) == 1 else "were"
    return f"{count} could not be decoded without damage and {were} left out (at {times}): {missing[0].reason}."
