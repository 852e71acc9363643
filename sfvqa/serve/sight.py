"""A video on its way to the model: read by a thread for all who ask about it, encoded once, kept for the next.

And a request that has only to be answered, its video having come all the way.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.checkpoints.device import memory_errors
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, EncodeStage
from sfvqa.inference.reading_ahead import Chunk, Reading, VideoBeingRead, start_reading
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.request import Job, Request
from sfvqa.video.clip import ClipFacts
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName, ReadOptions, VideoBeingOpened, VideoReader
from sfvqa.video.readers.isolated import SpareProcess
from sfvqa.video.readers.local_file import FileState, check_local_file, pictures_in
from sfvqa.video.reading import ReadProgress
from sfvqa.video.sampling import SamplingOptions

if TYPE_CHECKING:
    from sfvqa.inference.prefill import KeptPrompt

_MOST_PADDING = 1.25  # the longest video of a batch over the shortest, which is padded to it


class OpenVideo:
    """A video that stays open for a request about its windows, which are read in one pass; threads take turns.

    It is kept only where one of the `places` is free for it, until it is closed.
    """

    def __init__(self, places: threading.Semaphore) -> None:
        self._places, self._turn = places, threading.Lock()
        self._reader: VideoReader | None = None
        self._kept = contextlib.ExitStack()
        self._was_read = self._is_closed = False

    def keep(self, video: VideoReader, reader: VideoReader) -> None:
        """Keep a video, with the reader of its windows, or close it where there is no place or nobody waits by now."""
        with self._turn:
            self._kept.enter_context(video)
            if self._is_closed or not self._places.acquire(blocking=False):
                self._kept.close()
                return
            self._kept.callback(self._places.release)
            self._reader = self._kept.enter_context(reader)

    @contextlib.contextmanager
    def taken(self) -> Iterator[VideoReader | None]:
        """The reader, while no other thread has it; None where it is closed, or the file another one by now."""
        with self._turn:
            reader = self._reader if self._reader is not None and self._reader.is_unchanged else None
            if reader is not None and self._was_read:
                reader.open_seconds = 0.0  # which the first window waited for
            self._was_read = True
            yield reader

    def close(self) -> None:
        """Close it once nobody reads it; safe to call twice."""
        with self._turn:
            self._reader, self._is_closed = None, True
            self._kept.close()


@dataclass(frozen=True)
class View:
    """A file as it is now, seen so: those who ask for the same share a Sight.

    `marks` are the name, size and times of the last change, which may be forged, and of the last change to the inode,
    which cannot: of the file, or in their order of the pictures in a folder.
    """

    file: FileState
    marks: tuple[tuple[str, int, int, int], ...]
    sampling: SamplingOptions
    crop: CropMode
    reader: ReaderName

    @classmethod
    def of(cls, video: Path, request: Request) -> "View":
        """Of a request about this video. Raises VideoError for what can be no video."""
        file = check_local_file(video).resolve()
        marks = tuple(map(_mark, pictures_in(file) if file.is_dir() else [file]))
        return cls(FileState.of(file), marks, request.sampling, request.crop, request.reading.reader)


def _mark(file: Path) -> tuple[str, int, int, int]:
    status = file.stat()
    return file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@dataclass(eq=False)
class Sight:
    """A video that some `jobs` wait for; `source` is what there is to encode once it was read, or kept on disk.

    Once it is `encoded` it is asked about, until there is an answer with what it cost. `kept` is the last prompt about
    it. `cancel` ends the reading. It `is_read_again` where memory ran out at the first try.
    """

    view: View
    reading: ReadOptions
    kept_open: "OpenVideo | None" = None
    jobs: list[Job] = field(default_factory=list)
    source: VideoBeingRead | Path | None = None
    encoded: EncodedVideo | None = None
    kept: "KeptPrompt | None" = None
    is_given_up: bool = False
    is_read_again: bool = False
    _being_read: VideoBeingOpened | VideoReader | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_bytes(self) -> int:
        """What its tokens take, and what is kept of the prompt."""
        tokens = () if self.encoded is None else (self.encoded.visual_tokens.slow, self.encoded.visual_tokens.fast)
        num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tokens)
        return num_bytes if (kept := self.kept) is None else num_bytes + kept.cache.num_bytes

    def pay(self) -> None:
        """Whoever asks from now on waits for no reading and encoding: it is there already."""
        assert self.encoded is not None
        self.encoded = replace(self.encoded.paid(), is_from_cache=True)

    def cancel(self) -> None:
        """Have nothing more read: nobody waits any longer."""
        with self._lock:
            self.is_given_up = True
            if self._being_read is not None:
                self._being_read.cancel()

    def read(self, answerer: VideoQA, spare: SpareProcess) -> None:
        """Read all its frames into memory, unless the video cache holds it. Raises VideoError, OutOfMemoryError."""
        view, path = self.view, self.view.file.path
        if answerer.is_kept(path, view.sampling, reading=self.reading, crop=view.crop):
            self.source = path
            return
        with memory_errors("reading the video"), self._opened(spare) as reader:
            if reader is None:
                return
            being_read = start_reading(reader, view.sampling, answerer.fit(view.crop))
            frames = self._read_all(being_read)
        self.source = replace(being_read, chunks=frames)

    @contextlib.contextmanager
    def _opened(self, spare: SpareProcess) -> Iterator[VideoReader | None]:
        """The open video, opened for it if need be; None where nobody waits any longer."""
        with contextlib.ExitStack() as using:
            kept = None if self.kept_open is None else using.enter_context(self.kept_open.taken())
            opening = kept or using.enter_context(
                contextlib.closing(VideoBeingOpened(self.view.file.path, self.reading, spare))
            )
            with self._lock:
                self._being_read = None if self.is_given_up else opening
            try:
                if self._being_read is None:
                    yield None
                elif isinstance(opening, VideoReader):
                    yield opening
                else:
                    yield using.enter_context(opening.reader())
            finally:
                with self._lock:
                    self._being_read = None

    def _read_all(self, being_read: VideoBeingRead) -> Reading:
        progress, chunks = ReadProgress(0, 0), list[Chunk]()
        with contextlib.closing(being_read.chunks) as steps:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    return _from_memory(progress, chunks, end.value)
                if isinstance(step, ReadProgress):
                    progress = step
                    self.tell(EncodeProgress(EncodeStage(step.stage), step.done, step.total))
                else:
                    chunks.append(step)

    def tell(self, progress: EncodeProgress) -> None:
        """Tell all who wait."""
        for job in list(self.jobs):
            if not job.is_over:
                job.tell(progress)


def _from_memory(progress: ReadProgress, chunks: list[Chunk], facts: ClipFacts) -> Reading:
    """What was read, given once; each chunk goes as it is taken."""
    yield progress
    chunks.reverse()
    while chunks:
        yield chunks.pop()
    return facts


@dataclass(frozen=True, eq=False)
class Waiting:
    """A request that can be answered since a time: its video, if any, is encoded."""

    job: Job
    sight: Sight | None
    since: float

    @property
    def encoded(self) -> EncodedVideo | None:
        """What is asked about."""
        return None if self.sight is None else self.sight.encoded

    @property
    def num_frames(self) -> int:
        """Of its video."""
        return 0 if self.encoded is None else len(self.encoded.indices)

    def fits(self, other: "Waiting") -> bool:
        """Whether both can be answered together: alike, and about videos of about as many slow tokens, or none.

        Work that is a request's own is done alone.
        """
        if self is other:
            return True
        if self.job.work or other.job.work or not self.job.request.can_be_answered_with(other.job.request):
            return False
        if self.encoded is None or other.encoded is None:
            return self.encoded is other.encoded
        shorter, longer = sorted(len(each.visual_tokens.slow) for each in (self.encoded, other.encoded))
        return longer <= _MOST_PADDING * shorter
