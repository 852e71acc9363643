"""A video file → SeenVideo → EncodedVideo: read and seen once, in chunks as it is read, to be asked about often."""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch

from sfvqa.inference.being_read import VideoBeingRead, start_reading
from sfvqa.inference.chunk_encoder import ChunkEncoder
from sfvqa.inference.device import memory_errors
from sfvqa.inference.reading_ahead import CHUNKS_AHEAD, Reading, read_ahead
from sfvqa.inference.seen_video import SeenVideo
from sfvqa.inference.stopwatch import Stopwatch, seconds_together
from sfvqa.inference.trained_with import TrainedWith
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens, num_frames_outside_fast_path
from sfvqa.registry import QuantizationName
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import CropMode, FitSquare
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.reading import ClipFacts, ReadProgress
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import plural


class EncodeStage(StrEnum):
    """What is being done to the frames."""

    SEARCH = "search"
    READ = "read"
    ENCODE = "encode"


@dataclass(frozen=True)
class EncodeProgress:
    """`done` of `total` frames are through `stage`."""

    stage: EncodeStage
    done: int
    total: int


@dataclass(frozen=True)
class SeeingCosts:
    """What seeing a video took; by the wall clock that was `read_seconds + encode_seconds - overlap_seconds`.

    `preprocess_seconds` are the part of encoding in which pixels were normalised, `warnings` about the run, not the
    video.
    """

    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    overlap_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    preprocess_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What a model has seen of one video, with where the frames came from and what they cost (see Timings).

    `is_from_cache` says that it was not seen now but taken from the video cache.
    """

    visual_tokens: VisualTokens
    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    strategy: str
    reader: str
    crop: CropMode
    video: VideoInfo
    warnings: tuple[str, ...]
    read_seconds: float
    encode_seconds: float
    overlap_seconds: float = 0.0
    is_from_cache: bool = False
    preprocess_seconds: float = 0.0

    def paid(self) -> "EncodedVideo":
        """The same for a further question, which waits for no reading and encoding any more."""
        return replace(self, read_seconds=0.0, encode_seconds=0.0, overlap_seconds=0.0, preprocess_seconds=0.0)

    def lying_at(self, path: Path) -> "EncodedVideo":
        """The same under another path: as the user gave it, say."""
        return replace(self, video=replace(self.video, path=path))


def encode_progressively(
    model: SlowFastForConditionalGeneration,
    video: str | Path | VideoReader | VideoBeingRead,
    sampling: SamplingOptions,
    *,
    reading: ReadOptions | None = None,
    crop: CropMode = CropMode.CENTER,
    trained_with: TrainedWith | None = None,
    quantization: QuantizationName = QuantizationName.NONE,
    chunks_ahead: int = CHUNKS_AHEAD,
) -> Generator[EncodeProgress, None, EncodedVideo]:
    """Read and encode a video, yielding progress by the frame or chunk; the EncodedVideo is the generator's value.

    See see_progressively, which this is with encoded_from behind it.
    """
    seen, costs = yield from see_progressively(
        model, video, sampling, reading=reading, crop=crop, quantization=quantization, chunks_ahead=chunks_ahead
    )
    return encoded_from(seen, model, sampling, trained_with, costs)


def see_progressively(
    model: SlowFastForConditionalGeneration,
    video: str | Path | VideoReader | VideoBeingRead,
    sampling: SamplingOptions,
    *,
    reading: ReadOptions | None = None,
    crop: CropMode = CropMode.CENTER,
    quantization: QuantizationName = QuantizationName.NONE,
    chunks_ahead: int = CHUNKS_AHEAD,
) -> Generator[EncodeProgress, None, tuple[SeenVideo, SeeingCosts]]:
    """Read a video and run the vision tower on its frames, yielding progress by the frame or chunk of them.

    A thread reads, `chunks_ahead` chunks of frames ahead of the vision tower, which bounds the memory; with 0 there is
    no thread and what comes out is the same. The stages READ and ENCODE alternate; frames that turn out to be missing
    make the total of ENCODE smaller in the end.

    A video that is open already is read with its own options, and stays open; what opening it took counts as reading.
    Of one that is being read already, just so, the chunks are taken as they come, without a thread of its own.
    The seconds leave out what the caller does between steps, as far as nothing is read meanwhile. Running out of
    memory is tried again with fewer frames in the vision tower; the OutOfMemoryError then names what should fit, for
    which `quantization` is asked. Raises VideoError too. Leaving early ends the thread, and reading with it.
    """
    encoder, fit = ChunkEncoder(model, quantization), FitSquare(model.config.vision.image_size, crop)
    with _being_read(video, sampling, fit, reading, chunks_ahead) as being_read:
        facts = yield from _encode(being_read.chunks, encoder)
    seen = SeenVideo(
        visual_tokens=encoder.visual_tokens(),
        indices=facts.indices,
        timestamps_seconds=facts.timestamps_seconds,
        strategy=facts.strategy,
        reader=facts.reader,
        crop=crop,
        video=facts.video,
        num_missing=len(facts.missing),
        warnings=facts.warnings,
    )
    return seen, SeeingCosts(
        read_seconds=being_read.reader.open_seconds + being_read.watch.seconds,
        encode_seconds=encoder.watch.seconds,
        overlap_seconds=seconds_together(being_read.watch, encoder.watch),
        warnings=encoder.warnings,
        preprocess_seconds=encoder.preprocess_watch.seconds,
    )


@contextlib.contextmanager
def _being_read(
    video: str | Path | VideoReader | VideoBeingRead,
    sampling: SamplingOptions,
    fit: FitSquare,
    reading: ReadOptions | None,
    chunks_ahead: int,
) -> Iterator[VideoBeingRead]:
    if isinstance(video, VideoBeingRead):
        video.check(sampling, fit)
        yield video
        return
    with memory_errors("reading the video"):
        opened = video if isinstance(video, VideoReader) else open_video(video, reading)
    with contextlib.nullcontext() if opened is video else opened:
        here = start_reading(opened, sampling, fit)
        yield replace(here, chunks=read_ahead(here.chunks, chunks_ahead, opened.cancel))


def encoded_from(
    seen: SeenVideo,
    model: SlowFastForConditionalGeneration,
    sampling: SamplingOptions,
    trained_with: TrainedWith | None = None,
    costs: SeeingCosts | None = None,
) -> EncodedVideo:
    """Split what was seen, by this model and with this sampling, into slow and fast tokens, and add what to know of it.

    costs: what seeing it took in this run (nothing unless given), to which the split is added.
    """
    costs = costs or SeeingCosts()
    watch = Stopwatch(model.device)
    with watch, torch.inference_mode(), memory_errors("encoding the frames"):
        visual_tokens = model.split(seen.visual_tokens)
    return EncodedVideo(
        visual_tokens=visual_tokens,
        indices=seen.indices,
        timestamps_seconds=seen.timestamps_seconds,
        strategy=seen.strategy,
        reader=seen.reader,
        crop=seen.crop,
        video=seen.video,
        warnings=(*seen.warnings, *costs.warnings, *_warnings_about(seen, sampling, model, trained_with)),
        read_seconds=costs.read_seconds,
        encode_seconds=costs.encode_seconds + watch.seconds,
        overlap_seconds=costs.overlap_seconds,
        preprocess_seconds=costs.preprocess_seconds,
    )


def _encode(chunks: Reading, encoder: ChunkEncoder) -> Generator[EncodeProgress, None, ClipFacts]:
    total = 0
    with contextlib.closing(chunks):
        while True:
            with memory_errors("reading the video"):
                try:
                    item = next(chunks)
                except StopIteration as end:
                    facts: ClipFacts = end.value
                    break
            if isinstance(item, ReadProgress):
                total = item.total
                yield EncodeProgress(EncodeStage(item.stage), item.done, item.total)
            else:
                encoder.add(item, total)
                yield EncodeProgress(EncodeStage.ENCODE, encoder.num_frames, total)
    if encoder.num_frames != total:
        yield EncodeProgress(EncodeStage.ENCODE, encoder.num_frames, encoder.num_frames)
    return facts


def _warnings_about(
    seen: SeenVideo,
    sampling: SamplingOptions,
    model: SlowFastForConditionalGeneration,
    trained_with: TrainedWith | None,
) -> list[str]:
    num_frames = len(seen.indices)
    warnings = trained_with.warnings(sampling, num_frames + seen.num_missing, seen.crop) if trained_with else []
    if left_out := num_frames_outside_fast_path(num_frames, model.config):
        warnings.append(
            f"No window of {model.config.temporal_stride} for the fast tokens holds the last {left_out} of "
            f"{plural(num_frames, 'frame')}; only slow tokens show {'it' if left_out == 1 else 'them'}."
        )
    return warnings
