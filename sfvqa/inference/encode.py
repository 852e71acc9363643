"""A video file → SeenVideo → EncodedVideo: read and seen once, in chunks as it is read, to be asked about often.

Pixel values are the reference's bit for bit: its resize and centre crop while reading, its normalisation on the model's
device, which frames reach as bytes. Once memory runs out, the vision tower takes less at a time.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sfvqa.checkpoints.device import free_memory_bytes, memory_errors, release_memory, synchronize
from sfvqa.checkpoints.host import return_freed_blocks
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.checkpoints.memory import CHUNKS_AHEAD, USE_LESS
from sfvqa.checkpoints.plan import (
    SMALL_CHUNK_SIZE,
    architecture_of,
    check_positions,
    fast_tokens_of,
    what_should_fit,
)
from sfvqa.errors import OutOfMemoryError, let_go
from sfvqa.inference.reading_ahead import Chunk, VideoBeingRead, read_ahead, start_reading
from sfvqa.inference.stopwatch import Stopwatch, seconds_together
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens, num_frames_outside_fast_path
from sfvqa.registry import QuantizationName
from sfvqa.video.clip import ClipFacts, VideoInfo
from sfvqa.video.fitting import CropMode, Fit, FitSquare
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.reading import ReadProgress
from sfvqa.video.sampling import SamplingOptions
from sfvqa.video.windows import Window
from sfvqa.wording import plural


def pixel_values(frames: NDArray[np.uint8], config: Any) -> Tensor:
    """Turn RGB frames `[T, H, W, 3]` into what the vision tower takes: float32 `[T, 3, S, S]`, S = `image_size`.

    Shortest edge to S (Pillow's bicubic, antialiased; long edge `int(S * long / short)`), centre crop, /255, mean and
    standard deviation: CLIPImageProcessor's steps in its order. Frames of S × S pixels, which were fitted while they
    were read, are only normalised.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {frames.shape}")
    cropped = np.stack(list(map(FitSquare(config.image_size), frames)))
    return normalised(torch.from_numpy(cropped), pixel_table(config))


def pixel_table(config: Any) -> Tensor:
    """What a byte of a fitted frame becomes: float32 `[768]`, for red from 0, for green from 256, for blue from 512."""
    scaled = (np.arange(256) * (1 / 255)).astype(np.float32)  # in float64 first: the reference's rounding
    mean, std = (np.asarray(values, dtype=np.float32)[:, None] for values in (config.image_mean, config.image_std))
    return torch.from_numpy(((scaled - mean) / std).ravel())


def normalised(frames: Tensor, table: Tensor) -> Tensor:
    """Fitted frames, uint8 `[T, S, S, 3]` → `[T, 3, S, S]` with the values of `table`, channels last in memory."""
    places = frames + torch.arange(0, len(table), 256, dtype=torch.int32, device=table.device)
    return table[places].permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class SeenVideo:
    """The visual tokens `[T, h, w, D]` of a video's frames, and where these came from: no question changes it.

    `num_missing` frames were chosen and could not be read; `warnings` are about the file and its frames alone.
    """

    visual_tokens: Tensor
    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    strategy: str
    reader: str
    crop: CropMode
    video: VideoInfo
    num_missing: int = 0
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, visual_tokens: Tensor, facts: ClipFacts, crop: CropMode) -> "SeenVideo":
        """The visual tokens of a clip that says this of itself."""
        return cls(
            visual_tokens=visual_tokens,
            indices=facts.indices,
            timestamps_seconds=facts.timestamps_seconds,
            strategy=facts.strategy,
            reader=facts.reader,
            crop=crop,
            video=facts.video,
            num_missing=len(facts.missing),
            warnings=facts.warnings,
        )

    def __post_init__(self) -> None:
        shape = tuple(self.visual_tokens.shape)
        if len(shape) != 4 or not shape[0] == len(self.indices) == len(self.timestamps_seconds):
            raise ValueError(
                f"visual tokens are [T, h, w, D] with an index and a timestamp a frame, got {shape}, "
                f"{len(self.indices)} indices and {len(self.timestamps_seconds)} timestamps"
            )


class ChunkEncoder:
    """Makes visual tokens of chunks of frames and keeps them; `watch` has the time that took, `preprocess_watch` the
    part of it in which bytes became pixel values.

    They are pooled chunk by chunk, but those of an only frame not at all: a first chunk of one frame stays as it is
    until a second one comes.
    When memory runs out the chunk at hand is tried again, and those after it only, `SMALL_CHUNK_SIZE` frames at a
    time; `warnings` then say so. What a second time runs out is an OutOfMemoryError that names what should fit, for
    which `quantization` is asked.
    A GPU is given chunk after chunk, and waited for only when the visual tokens are asked for: what it did while the
    program waited for frames is not in the times. With `times_chunks` it is waited for at each step, and they are its
    own.
    """

    def __init__(
        self, model: SlowFastForConditionalGeneration, quantization: QuantizationName, *, times_chunks: bool = False
    ) -> None:
        self.watch, self.preprocess_watch = (Stopwatch(model.device if times_chunks else None) for _ in range(2))
        self.num_frames = 0
        self.warnings: tuple[str, ...] = ()
        self._model = model
        self._table = pixel_table(model.config.vision).to(model.device, model.dtype)
        self._quantization = quantization
        self._visual_tokens: list[Tensor] = []

    def add(self, frames: Chunk, num_wanted: int) -> None:
        """Encode a chunk `[t, H, W, 3]` of the `num_wanted` frames that there will be at most."""

        def remedy() -> str:
            return self._what_should_fit(num_wanted)

        encoded: list[Tensor] | None = None
        if not self.warnings:
            try:
                encoded = self._run(frames, len(frames), lambda: USE_LESS)
            except OutOfMemoryError as error:
                let_go(error)
        if encoded is None:
            if not self.warnings:
                release_memory(self._model.device)
                self.warnings = (
                    f"Memory ran out with {plural(len(frames), 'frame')} in the vision tower; "
                    f"they were encoded {SMALL_CHUNK_SIZE} at a time.",
                )
            encoded = self._run(frames, SMALL_CHUNK_SIZE, remedy)
        if self.num_frames == 1:  # it was not the only frame after all
            with self._working(remedy):
                self._visual_tokens = [self._model.pool(first) for first in self._visual_tokens]
        self._visual_tokens += encoded
        self.num_frames += len(frames)

    def visual_tokens(self) -> Tensor:
        """All visual tokens so far, `[T, h, w, D]`; the encoder keeps none of them."""
        with self._working(lambda: self._what_should_fit(self.num_frames)):
            joined = torch.cat(self._visual_tokens)
            synchronize(self._model.device)
        self._visual_tokens = []
        if joined.device.type == "cpu":
            return_freed_blocks()  # the vision tower's, which would lie beside the prompt's
        return joined

    def _run(self, frames: Chunk, chunk_size: int, remedy: Callable[[], str]) -> list[Tensor]:
        with self._working(remedy):
            visual_tokens = self._model.encode_frames(self._pixel_values(frames, chunk_size))
            if self.num_frames + len(frames) > 1:
                visual_tokens = map(self._model.pool, visual_tokens)
            return list(visual_tokens)

    def _pixel_values(self, frames: Chunk, chunk_size: int) -> Iterator[Tensor]:
        for part in torch.from_numpy(frames).split(chunk_size):
            with self.preprocess_watch:
                made = normalised(self._on_device(part), self._table)
            yield made

    def _on_device(self, frames: Tensor) -> Tensor:
        device = self._table.device
        if device.type != "cuda":
            return frames.to(device)
        # A copy out of memory that is not pinned would wait for all that the GPU still has to do.
        return frames.pin_memory().to(device, non_blocking=True)

    @contextlib.contextmanager
    def _working(self, remedy: Callable[[], str]) -> Iterator[None]:
        with self.watch, torch.inference_mode(), memory_errors("encoding the frames", remedy):
            yield

    def _what_should_fit(self, num_frames: int) -> str:
        model = self._model
        return what_should_fit(
            model.config,
            num_frames,
            device=model.device,
            dtype=model.dtype,
            quantization=self._quantization,
            free_bytes=free_memory_bytes(model.device),
            is_loaded=True,
        )


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

    On a GPU encoding is what the program spent on it, as ChunkEncoder says. `preprocess_seconds` are the part of it in
    which pixels were normalised, `warnings` about the run, not the video.
    """

    read_seconds: float = 0.0
    encode_seconds: float = 0.0
    overlap_seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    preprocess_seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class EncodedVideo:
    """What a model has seen of one video, with where the frames came from and what they cost (see Timings).

    `is_from_cache` says that it was not seen now but taken from the video cache; `window` is the part of the video that
    was seen, where it is seen in windows; `asked_range` is the start and end that were asked for, None for none.
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
    window: Window | None = None
    asked_range: tuple[float | None, float | None] = (None, None)

    @property
    def num_slow_tokens(self) -> int:
        """How many the text can attend to."""
        return len(self.visual_tokens.slow)

    @property
    def num_fast_tokens(self) -> int:
        """How many stand in the prompt."""
        return len(self.visual_tokens.fast)

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
    times_chunks: bool = False,
) -> Generator[EncodeProgress, None, EncodedVideo]:
    """Read and encode a video, yielding progress by the frame or chunk; the EncodedVideo is the generator's value.

    See see_progressively, which this is with encoded_from behind it.
    """
    seen, costs = yield from see_progressively(
        model,
        video,
        sampling,
        reading=reading,
        crop=crop,
        quantization=quantization,
        chunks_ahead=chunks_ahead,
        times_chunks=times_chunks,
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
    times_chunks: bool = False,
) -> Generator[EncodeProgress, None, tuple[SeenVideo, SeeingCosts]]:
    """Read a video and run the vision tower on its frames, yielding progress by the frame or chunk of them.

    A thread reads, `chunks_ahead` chunks of frames ahead of the vision tower, which bounds the memory; with 0 there is
    no thread and what comes out is the same. The stages READ and ENCODE alternate; frames that turn out to be missing
    make the total of ENCODE smaller in the end.

    A video that is open already is read with its own options, and stays open; what opening it took counts as reading.
    Of one that is being read already, just so, the chunks are taken as they come, without a thread of its own.
    The seconds leave out what the caller does between steps, as far as nothing is read meanwhile; with `times_chunks`
    they are a GPU's own, which is then waited for after each chunk (see ChunkEncoder). Running out of memory is tried
    again with fewer frames in the vision tower; the OutOfMemoryError then names what should fit, for which
    `quantization` is asked. Raises VideoError too, and PromptTooLongError for more frames than the model has positions
    for, before any is encoded. Leaving early ends the thread, and reading with it.
    """
    encoder = ChunkEncoder(model, quantization, times_chunks=times_chunks)
    fit = model.config.family.fit(model.config.vision, crop)
    total = 0
    with (
        _being_read(video, sampling, fit, reading, chunks_ahead) as being_read,
        contextlib.closing(being_read.chunks) as chunks,
    ):
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
                if not encoder.num_frames:
                    check_positions(architecture_of(model.config), fast_tokens_of(model.config), total)
                encoder.add(item, total)
                yield EncodeProgress(EncodeStage.ENCODE, encoder.num_frames, total)
    if encoder.num_frames != total:
        yield EncodeProgress(EncodeStage.ENCODE, encoder.num_frames, encoder.num_frames)
    return SeenVideo.of(encoder.visual_tokens(), facts, crop), SeeingCosts(
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
    fit: Fit,
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
        asked_range=(sampling.start_seconds, sampling.end_seconds),
    )


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
