"""Frames of a video in chunks, read by a thread while the chunks before are worked on. No torch."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.video.clip import CHUNK_SIZE, ClipFacts
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import VideoReader
from sfvqa.video.reading import ReadProgress, ReadStep, read_frame_by_frame
from sfvqa.video.sampling import SamplingOptions

_PATIENCE_SECONDS = 0.1  # of what Ctrl-C cannot wake everywhere, and before a thread is told again to end

Chunk = NDArray[np.uint8]
"""Frames `[t, H, W, 3]`."""
Reading = Generator[ReadProgress | Chunk, None, ClipFacts]
"""Progress and chunks as they come, and at the end what is known of all frames."""
NewChunk = Callable[[tuple[int, ...]], Chunk]
"""Memory for a chunk of this shape; it may wait until there is some."""


@dataclass(frozen=True)
class _End:
    facts: ClipFacts


_Message = ReadProgress | Chunk | _End | BaseException


def new_chunk(shape: tuple[int, ...]) -> Chunk:
    """Memory for a chunk, at once."""
    return np.empty(shape, np.uint8)


@dataclass(frozen=True, eq=False)
class VideoBeingRead:
    """The fitted frames that `sampling` chooses of an opened video; `watch` has the time that reading them takes.

    Taken once, by one thread. The reader may be closed by whoever reads, once the chunks are at their end.
    """

    reader: VideoReader
    sampling: SamplingOptions
    fit: Fit
    chunks: Reading
    watch: Stopwatch

    def check(self, sampling: SamplingOptions, fit: Fit) -> None:
        """ValueError when these are not the frames that are wanted."""
        if (self.sampling, self.fit) != (sampling, fit):
            raise ValueError(f"wanted are frames by {sampling} and {fit}, read were those by {self.sampling}")


def start_reading(
    reader: VideoReader, sampling: SamplingOptions, fit: Fit, *, make_chunk: NewChunk = new_chunk
) -> VideoBeingRead:
    """Have an opened video read by whoever takes the chunks; `make_chunk` gives the memory for each."""
    watch = Stopwatch()
    steps = read_frame_by_frame(reader, sampling, fit=fit)
    return VideoBeingRead(reader, sampling, fit, in_chunks(steps, CHUNK_SIZE, watch, make_chunk), watch)


def read_from_now_on(reader: VideoReader, sampling: SamplingOptions, fit: Fit, chunks_ahead: int) -> VideoBeingRead:
    """Have a thread read an opened video at once, `chunks_ahead` chunks ahead of whoever takes them.

    The chunks are to be closed, taken or not, which ends the thread. Raises VideoError; what goes wrong later is raised
    where the chunks are taken.
    """
    here = start_reading(reader, sampling, fit)
    chunks = read_ahead(here.chunks, chunks_ahead, reader.cancel)
    next(chunks)  # that nothing is read yet: with it the thread starts
    return replace(here, chunks=chunks)


def in_chunks(
    steps: Generator[ReadStep, None, ClipFacts],
    chunk_size: int,
    watch: AbstractContextManager[object],
    make_chunk: NewChunk = new_chunk,
) -> Reading:
    """Put frames together, `chunk_size` at a time and the last fewer; `watch` runs while they are read.

    Each chunk is put into memory of its own, made when its first frame is there, and kept by nobody here afterwards.
    """
    filled = 0
    with closing(steps):
        while True:
            with watch:
                try:
                    step = next(steps)
                except StopIteration as end:
                    facts: ClipFacts = end.value
                    break
            if step.pixels is not None:
                if not filled:
                    chunk = make_chunk((chunk_size, *step.pixels.shape))
                chunk[filled] = step.pixels
                filled += 1
            yield step.progress
            if filled == chunk_size:
                yield chunk
                del chunk
                filled = 0
    if filled:
        yield chunk[:filled]
        del chunk
    return facts


def read_ahead(reading: Reading, chunks_ahead: int, cancel: Callable[[], None]) -> Reading:
    """The same progress, chunks and facts, by a thread that reads on while at most `chunks_ahead` chunks wait.

    With 0 there is no thread. Progress is given before the chunks that wait, an error at once and in their place.
    Closing the generator early stops the thread, with `cancel` ending what it may be waiting for, and waits for it.
    """
    if chunks_ahead == 0:
        return (yield from reading)
    messages: queue.SimpleQueue[_Message] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(chunks_ahead), threading.Event()
    thread = threading.Thread(
        target=_run, args=(reading, messages.put, room, stopped), name="sfvqa-reading", daemon=True
    )
    waiting: deque[Chunk] = deque()
    end: _End | None = None
    has_failed = False
    try:
        thread.start()
        while waiting or end is None:
            try:
                message = messages.get(block=not waiting, timeout=_PATIENCE_SECONDS)
            except queue.Empty:
                if waiting:
                    room.release()
                    yield waiting.popleft()
                continue
            if isinstance(message, BaseException):
                has_failed = True
                try:
                    raise message
                finally:
                    del message  # else error and traceback would keep each other, and all that was seen so far
            if isinstance(message, ReadProgress):
                yield message
            elif isinstance(message, _End):
                end = message
            else:
                waiting.append(message)
        return end.facts
    finally:
        stopped.set()
        room.release()
        while thread.is_alive():
            if end is None and not has_failed:
                cancel()
            thread.join(_PATIENCE_SECONDS)


def _run(
    reading: Reading, put: Callable[[_Message], None], room: threading.Semaphore, stopped: threading.Event
) -> None:
    """What the thread does; it is the one to close the generator, which it may be in the middle of."""
    try:
        with closing(reading):
            while not stopped.is_set():
                try:
                    item = next(reading)
                except StopIteration as finished:
                    put(_End(finished.value))
                    return
                if not isinstance(item, ReadProgress):
                    room.acquire()
                put(item)
    except BaseException as error:  # noqa: BLE001  raised again where the chunks are taken
        put(error)
