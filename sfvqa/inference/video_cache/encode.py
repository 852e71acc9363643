"""Encoding through the video cache: what these weights saw before, just so, is neither read nor encoded again."""

import contextlib
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from sfvqa.checkpoints.device import memory_errors
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import OutOfMemoryError, UnreadableVideoError, let_go
from sfvqa.inference.encode import (
    EncodedVideo,
    EncodeProgress,
    SeeingCosts,
    SeenVideo,
    encode_progressively,
    encoded_from,
    see_progressively,
)
from sfvqa.inference.reading_ahead import VideoBeingRead
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.inference.video_cache.entry import EncodingKey
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.registry import QuantizationName
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName, ReadOptions, VideoReader, open_video
from sfvqa.video.sampling import SamplingOptions


def encode_through_cache(
    checkpoint: LoadedCheckpoint,
    cache: VideoCache,
    video: str | Path | VideoReader | VideoBeingRead,
    sampling: SamplingOptions,
    *,
    reading: ReadOptions | None,
    crop: CropMode,
    trained_with: TrainedWith,
) -> Generator[EncodeProgress, None, EncodedVideo]:
    """As encode_progressively, which this is for a video that the cache does not hold, and keeps it there.

    Looking for it, and keeping it, count as reading. It is kept only if the file is the same before and after. What is
    wrong with the cache is a warning of the EncodedVideo, no error. Raises what encoding raises.
    """
    model, watch = checkpoint.model, Stopwatch()
    quantization = QuantizationName(checkpoint.quantization.value)
    source = video.reader if isinstance(video, VideoBeingRead) else video
    if isinstance(source, VideoReader):
        path, reader, opening_seconds = source.info.path, source.asked_for, source.open_seconds
    else:
        path, reader, opening_seconds = Path(source), (reading or ReadOptions()).reader, 0.0
    try:
        with watch, memory_errors("looking into the video cache"):
            key = encoding_key(checkpoint, cache, path, sampling, crop=crop, reader=reader)
            found = cache.load(key, path)
    except UnreadableVideoError as error:  # of bytes that a reader may do without; if it cannot, it says why
        encoded = yield from encode_progressively(
            model, video, sampling, reading=reading, crop=crop, trained_with=trained_with, quantization=quantization
        )
        return replace(encoded, warnings=(*encoded.warnings, f"The encoded video is not kept: {error.message}"))
    if found.seen is not None:
        with watch, memory_errors("loading the encoded video"):
            seen = replace(found.seen, visual_tokens=found.seen.visual_tokens.to(model.device))
        costs = SeeingCosts(read_seconds=opening_seconds + watch.seconds)
        return replace(encoded_from(seen, model, sampling, trained_with, costs), is_from_cache=True)
    with contextlib.nullcontext(source) if isinstance(source, VideoReader) else open_video(source, reading) as opened:
        seen, costs = yield from see_progressively(
            model,
            video if isinstance(video, VideoBeingRead) else opened,
            sampling,
            crop=crop,
            quantization=quantization,
        )
    with watch:
        warning = _keep(cache, key, opened, seen)
    warnings = tuple(said for said in (found.warning, warning) if said)
    costs = replace(costs, read_seconds=costs.read_seconds + watch.seconds, warnings=(*costs.warnings, *warnings))
    return encoded_from(seen, model, sampling, trained_with, costs)


def encoding_key(
    checkpoint: LoadedCheckpoint,
    cache: VideoCache,
    path: Path,
    sampling: SamplingOptions,
    *,
    crop: CropMode,
    reader: ReaderName,
) -> EncodingKey:
    """What a video is kept under. Raises VideoError for what could not be opened as one."""
    model = checkpoint.model
    return EncodingKey(
        content=cache.content_of(path),
        sampling=sampling,
        crop=crop,
        reader=reader,
        checkpoint=checkpoint.identity,
        dtype=str(model.dtype).removeprefix("torch."),
        device_kind=model.device.type,
    )


def _keep(cache: VideoCache, key: EncodingKey, video: VideoReader, seen: SeenVideo) -> str | None:
    """Keep what was seen; the warning where that cannot be.

    Nothing where the file is another by now, or where frames are missing: it may have been the disk, for once.
    """
    if seen.num_missing or not video.is_unchanged or cache.content_of(video.info.path) != key.content:
        return None
    try:
        with memory_errors("keeping the encoded video"):
            return cache.save(key, seen)
    except OutOfMemoryError as error:
        let_go(error)
        return "The encoded video is not kept: there is too little memory to write it."
