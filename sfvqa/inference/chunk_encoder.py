"""The vision tower on one chunk of frames after the other, with less at a time once memory ran out."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sfvqa.errors import OutOfMemoryError
from sfvqa.inference.device import free_memory_bytes, memory_errors, release_memory
from sfvqa.inference.fit import USE_LESS
from sfvqa.inference.preprocess import pixel_value_chunks
from sfvqa.inference.reading_ahead import Chunk
from sfvqa.inference.remedy import SMALL_CHUNK_SIZE, what_should_fit
from sfvqa.inference.stopwatch import HOST, Stopwatch
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.registry import QuantizationName
from sfvqa.wording import plural


class ChunkEncoder:
    """Makes visual tokens of chunks of frames and keeps them; `watch` has the time that took, `preprocess_watch` the
    part of it in which the processor made pixel values.

    They are pooled chunk by chunk, but those of an only frame not at all: a first chunk of one frame stays as it is
    until a second one comes.
    When memory runs out the chunk at hand is tried again, and those after it only, `SMALL_CHUNK_SIZE` frames at a
    time; `warnings` then say so. What a second time runs out is an OutOfMemoryError that names what should fit, for
    which `quantization` is asked.
    """

    def __init__(self, model: SlowFastForConditionalGeneration, quantization: QuantizationName) -> None:
        self.watch = Stopwatch(model.device)
        self.preprocess_watch = Stopwatch(HOST)
        self.num_frames = 0
        self.warnings: tuple[str, ...] = ()
        self._model = model
        self._quantization = quantization
        self._visual_tokens: list[Tensor] = []

    def add(self, frames: Chunk, num_wanted: int) -> None:
        """Encode a chunk `[t, H, W, 3]` of the `num_wanted` frames that there will be at most."""
        encoded = self._encode(frames, num_wanted)
        if self.num_frames == 1:  # it was not the only frame after all
            with self._working(lambda: self._what_should_fit(num_wanted)):
                self._visual_tokens = [self._model.pool(first) for first in self._visual_tokens]
        self._visual_tokens += encoded
        self.num_frames += len(frames)

    def visual_tokens(self) -> Tensor:
        """All visual tokens so far, `[T, h, w, D]`; the encoder keeps none of them."""
        with self._working(lambda: self._what_should_fit(self.num_frames)):
            joined = torch.cat(self._visual_tokens)
        self._visual_tokens = []
        return joined

    def _encode(self, frames: Chunk, num_wanted: int) -> list[Tensor]:
        if not self.warnings:
            try:
                return self._run(frames, len(frames), lambda: USE_LESS)
            except OutOfMemoryError:
                pass
            # Only here, behind the except block, is the traceback gone, and with it the tensors its frames held.
            release_memory(self._model.device)
            self.warnings = (
                f"Memory ran out with {plural(len(frames), 'frame')} in the vision tower; "
                f"they were encoded {SMALL_CHUNK_SIZE} at a time.",
            )
        return self._run(frames, SMALL_CHUNK_SIZE, lambda: self._what_should_fit(num_wanted))

    def _run(self, frames: Chunk, chunk_size: int, remedy: Callable[[], str]) -> list[Tensor]:
        pixel_values = self._timed(pixel_value_chunks(frames, self._model.config.vision, chunk_size))
        with self._working(remedy):
            visual_tokens = self._model.encode_frames(pixel_values)
            if self.num_frames + len(frames) > 1:
                visual_tokens = map(self._model.pool, visual_tokens)
            return list(visual_tokens)

    def _timed(self, chunks: Iterator[Tensor]) -> Iterator[Tensor]:
        while True:
            with self.preprocess_watch:
                pixel_values = next(chunks, None)
            if pixel_values is None:
                return
            yield pixel_values

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
