"""A video on its way to the model: read by a thread for all who ask about it, encoded once, kept for the next."""

import contextlib
import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.checkpoints.device import memory_errors
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, EncodeStage, VideoBeingRead, start_reading
from sfvqa.inference.reading_ahead import Chunk
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.request import Job, Request
from sfvqa.video.clip import ClipFacts
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReaderName, ReadOptions, VideoReader, open_video
from sfvqa.video.readers.local_file import FileState, check_local_file
from sfvqa.video.reading import ReadProgress
from sfvqa.video.sampling import SamplingOptions

if TYPE_CHECKING:
    from sfvqa.inference.engine import KeptPrompt


@dataclass(frozen=True)
class View:
    """A file as it is now, seen so: those who ask for the same share a Sight."""

    file: FileState
    sampling: SamplingOptions
    crop: CropMode
    reader: ReaderName

    @classmethod
    def of(cls, video: Path, request: Request) -> "View":
        """Of a request about this video. Raises VideoError for what can be no video, OSError."""
        check_local_file(video)
        return cls(FileState.of(video.resolve()), request.sampling, request.crop, request.reading.reader)


@dataclass(eq=False)
class Sight:
    """A video that some `jobs` wait for; `source` is what there is to encode once it was read, or kept on disk.

    Once it is `encoded` it is asked about, the first time with what it cost. `kept` is the last prompt about it.
    `cancel` ends the reading.
    """

    view: View
    reading: ReadOptions
    jobs: list[Job] = field(default_factory=list)
    source: VideoBeingRead | Path | None = None
    encoded: EncodedVideo | None = None
    kept: "KeptPrompt | None" = None
    is_given_up: bool = False
    _reader: VideoReader | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def num_bytes(self) -> int:
        """What its tokens take."""
        if self.encoded is None:
            return 0
        tokens = self.encoded.visual_tokens
        return sum(part.numel() * part.element_size() for part in (tokens.slow, tokens.fast))

    def take(self) -> EncodedVideo:
        """What was seen; for all but the first who ask about it, it is there already."""
        assert self.encoded is not None
        taken, self.encoded = self.encoded, replace(self.encoded.paid(), is_from_cache=True)
        return taken

    def cancel(self) -> None:
        """Have nothing more read: nobody waits any longer."""
        with self._lock:
            self.is_given_up = True
            if self._reader is not None:
                self._reader.cancel()

    def read(self, answerer: VideoQA) -> None:
        """Read all its frames into memory, unless the video cache holds it. Raises VideoError, OutOfMemoryError."""
        view, path = self.view, self.view.file.path
        if answerer.is_kept(path, view.sampling, reading=self.reading, crop=view.crop):
            self.source = path
            return
        with memory_errors("reading the video"), open_video(path, self.reading) as reader:
            with self._lock:
                if self.is_given_up:
                    return
                self._reader = reader
            try:
                being_read = start_reading(reader, view.sampling, answerer.fit(view.crop))
                frames, facts = self._read_all(being_read)
            finally:
                with self._lock:
                    self._reader = None
            self.source = replace(being_read, chunks=_from_memory(frames, facts))

    def _read_all(self, being_read: VideoBeingRead) -> tuple[list[ReadProgress | Chunk], ClipFacts]:
        frames: list[ReadProgress | Chunk] = []
        with contextlib.closing(being_read.chunks) as steps:
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    return frames, end.value
                frames.append(step)
                if isinstance(step, ReadProgress):
                    self.tell(EncodeProgress(EncodeStage(step.stage), step.done, step.total))

    def tell(self, progress: EncodeProgress) -> None:
        """Tell all who wait."""
        for job in list(self.jobs):
            if not job.is_dropped:
                job.tell(progress)


def _from_memory(
    frames: list[ReadProgress | Chunk], facts: ClipFacts
) -> Generator[ReadProgress | Chunk, None, ClipFacts]:
    """What was read, given once; each chunk goes as it is taken."""
    frames.reverse()
    while frames:
        yield frames.pop()
    return facts
