"""A video file → EncodedVideo: read, preprocess and see it once, to be asked about often."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import torch

from sfvqa.errors import OutOfMemoryError
from sfvqa.inference.device import free_memory_bytes, memory_errors, release_memory
from sfvqa.inference.preprocess import pixel_value_chunks
from sfvqa.inference.remedy import SMALL_CHUNK_SIZE, what_should_fit
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.inference.trained_with import TrainedWith
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens, num_frames_outside_fast_path
from sfvqa.registry import QuantizationName
from sfvqa.video.clip import Clip, VideoInfo
from sfvqa.video.fitting import CropMode, FitSquare
from sfvqa.video.readers import ReadOptions, VideoReader
from sfvqa.video.reading import ReadProgress, read_clip_progressively
from sfvqa.video.sampling import SamplingOptions

CHUNK_SIZE = 8  # frames in the vision tower at a time: bounds the memory, changes nothing else


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


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What a model has seen of one video, with where the frames came from and what they cost."""

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

    def paid(self) -> "EncodedVideo":
        """The same for a further question, which waits for no reading and encoding any more."""
        return replace(self, read_seconds=0.0, encode_seconds=0.0)


def encode_progressively(
    model: SlowFastForConditionalGeneration,
    video: str | Path | VideoReader,
    sampling: SamplingOptions,
    *,
    reading: ReadOptions | None = None,
    crop: CropMode = CropMode.CENTER,
    trained_with: TrainedWith | None = None,
    quantization: QuantizationName = QuantizationName.NONE,
) -> Generator[EncodeProgress, None, EncodedVideo]:
    """Read and encode a video, yielding progress by the frame or chunk; the EncodedVideo is the generator's value.

    A video that is open already is read with its own options, and stays open; what opening it took counts as reading.
    Memory is bounded by the resized frames and one chunk of them in the vision tower. The seconds leave out what the
    caller does between steps. Running out of memory is tried again once, with fewer frames in the vision tower; the
    OutOfMemoryError then names what should fit, for which `quantization` is asked. Raises VideoError too.
    """
    read_watch, encode_watch = Stopwatch(model.device), Stopwatch(model.device)
    steps = read_clip_progressively(
        video, sampling, reading=reading, fit=FitSquare(model.config.vision.image_size, crop)
    )
    clip = yield from _read(steps, read_watch)
    visual_tokens, encoding_warnings = yield from _encode(model, clip, encode_watch, quantization)
    return EncodedVideo(
        visual_tokens=visual_tokens,
        indices=clip.indices,
        timestamps_seconds=clip.timestamps_seconds,
        strategy=clip.strategy,
        reader=clip.reader,
        crop=crop,
        video=clip.video,
        warnings=(*clip.warnings, *encoding_warnings, *_warnings_about(clip, sampling, crop, model, trained_with)),
        read_seconds=read_watch.seconds + (video.open_seconds if isinstance(video, VideoReader) else 0.0),
        encode_seconds=encode_watch.seconds,
    )


def _read(steps: Generator[ReadProgress, None, Clip], watch: Stopwatch) -> Generator[EncodeProgress, None, Clip]:
    with contextlib.closing(steps):
        while True:
            with watch, memory_errors("reading the video"):
                try:
                    step = next(steps)
                except StopIteration as end:
                    clip: Clip = end.value
                    return clip
            yield EncodeProgress(EncodeStage(step.stage), step.done, step.total)


def _encode(
    model: SlowFastForConditionalGeneration, clip: Clip, watch: Stopwatch, quantization: QuantizationName
) -> Generator[EncodeProgress, None, tuple[VisualTokens, list[str]]]:
    """Encode, and once more with fewer frames at a time when memory runs out; warnings say so."""
    try:
        return (yield from _encode_in_chunks(model, clip, watch, CHUNK_SIZE)), []
    except OutOfMemoryError:
        pass
    # Only here, behind the except block, is the traceback gone, and with it the tensors its frames held.
    release_memory(model.device)
    try:
        tokens = yield from _encode_in_chunks(model, clip, watch, SMALL_CHUNK_SIZE)
    except OutOfMemoryError as error:
        remedy = what_should_fit(
            model.config,
            len(clip.frames),
            device=model.device,
            dtype=model.dtype,
            quantization=quantization,
            free_bytes=free_memory_bytes(model.device),
            is_loaded=True,
        )
        raise OutOfMemoryError(error.message, remedy) from error
    return tokens, [
        f"Memory ran out with {CHUNK_SIZE} frames in the vision tower; they were encoded {SMALL_CHUNK_SIZE} at a time."
    ]


def _encode_in_chunks(
    model: SlowFastForConditionalGeneration, clip: Clip, watch: Stopwatch, chunk_size: int
) -> Generator[EncodeProgress, None, VisualTokens]:
    total, done = len(clip.frames), 0
    visual_tokens: list[torch.Tensor] = []
    chunks = model.encode_chunks(pixel_value_chunks(clip.frames, model.config.vision, chunk_size))
    while done < total:
        with watch, torch.inference_mode(), memory_errors("encoding the frames"):
            visual_tokens.append(next(chunks))
        done += len(visual_tokens[-1])
        yield EncodeProgress(EncodeStage.ENCODE, done, total)
    with watch, torch.inference_mode(), memory_errors("encoding the frames"):
        return model.split(torch.cat(visual_tokens))


def _warnings_about(
    clip: Clip,
    sampling: SamplingOptions,
    crop: CropMode,
    model: SlowFastForConditionalGeneration,
    trained_with: TrainedWith | None,
) -> list[str]:
    warnings, num_frames = [], len(clip.indices)
    if trained_with and (departure := trained_with.departure(sampling, num_frames + len(clip.missing), crop)):
        warnings.append(departure)
    if left_out := num_frames_outside_fast_path(num_frames, model.config):
        warnings.append(
            f"The last {left_out} of {num_frames} frames fill no window of {model.config.temporal_stride} "
            "for the fast tokens; the model sees them through its slow tokens only."
        )
    return warnings
