"""One video between the thread that reads it and the one that has the model: what is known of it, then its chunks."""

import threading
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.batch.frame_budget import FrameBudget, NoLongerWantedError
from sfvqa.batch.item import Item
from sfvqa.batch.work import Work
from sfvqa.inference.being_read import VideoBeingRead
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.reading_ahead import Chunk, Reading
from sfvqa.video.reading import ClipFacts, ReadProgress, ReadStage
from sfvqa.video.sampling import SamplingOptions

if TYPE_CHECKING:
    from sfvqa.video.readers import VideoReader


@dataclass(frozen=True)
class Question:
    """An item that is not done yet, and its id."""

    item: Item
    item_id: str


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is known once a video is opened, or need not be.

    `questions` are left; `before` counts the other items by the status of their records. `source` is what to encode,
    with `sampling`; None where no question is left or there is a `failure`.
    """

    questions: tuple[Question, ...]
    before: Counter[str]
    prompt: PromptOptions
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    source: VideoBeingRead | Path | None = None
    failure: Exception | None = None


@dataclass(frozen=True)
class _End:
    facts: ClipFacts


_Message = ReadProgress | Chunk | _End | Exception


class VideoAhead:
    """`prepared` and then chunks, put here by the thread that reads and taken by the one that has the model.

    `changed` is notified of whatever comes. Once the video is given up (`leave`), nothing comes any more, and what is
    here goes. `reader` is set while a file is open; `num_frames` once it is known how many will be read.
    """

    def __init__(self, work: Work, budget: FrameBudget, changed: threading.Condition) -> None:
        self.work = work
        self.prepared: Prepared | None = None
        self.reader: VideoReader | None = None
        self.num_frames: int | None = None
        self._budget = budget
        self._changed = changed
        self._messages: deque[_Message] = deque()
        self._progress: ReadProgress | None = None
        self._holds_chunk = False
        self._is_wanted = True

    def make_chunk(self, shape: tuple[int, ...]) -> Chunk:
        """Memory for the thread that reads. NoLongerWantedError once the video is given up."""
        return self._budget.make_chunk(shape, lambda: self._is_wanted)

    def arrive(self, prepared: Prepared) -> None:
        """Tell that the video can be begun with."""
        with self._changed:
            self.prepared = prepared
            self._changed.notify_all()

    def feed(self, chunks: Reading) -> None:
        """Run reading to its end, or until the video is given up; what goes wrong is told where the chunks are taken.

        The thread that calls this waits while there is no room for frames.
        """
        message: _Message
        try:
            while True:
                try:
                    message = next(chunks)
                except StopIteration as end:
                    self._put(_End(end.value))
                    return
                self._put(message)
                del message  # else this thread would hold a chunk that the model is done with
        except NoLongerWantedError:
            return
        except Exception as error:  # noqa: BLE001  raised again where the chunks are taken
            self._put(error)

    @property
    def can_go_on(self) -> bool:
        """Whether the thread that has the model need not wait for this video now."""
        if self.prepared is None:
            return False
        return bool(self._messages) or self._holds_chunk or not isinstance(self.prepared.source, VideoBeingRead)

    def chunks(self) -> Generator[ReadProgress | Chunk, None, ClipFacts]:
        """What was read, for the thread that has the model; each chunk is followed by progress, which lets go of it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._messages)
                message = self._messages.popleft()
            if isinstance(message, _End):
                return message.facts
            if isinstance(message, Exception):
                try:
                    raise message
                finally:
                    del message  # else error and traceback would keep each other, and chunks with them
            if isinstance(message, ReadProgress):
                self._progress = message
                self.num_frames = message.total if message.stage is ReadStage.READ else None
                yield message
                continue
            self._holds_chunk = True
            yield message
            del message
            self._holds_chunk = False
            assert self._progress is not None  # of the frames in the chunk
            yield self._progress

    def leave(self) -> None:
        """Give the video up, or be done with it: its reading ends, and its frames go."""
        with self._changed:
            self._is_wanted = False
            self._messages.clear()
            self._changed.notify_all()
        self._budget.wake()
        if (reader := self.reader) is not None:
            reader.cancel()

    def _put(self, message: _Message) -> None:
        with self._changed:
            if not self._is_wanted:
                raise NoLongerWantedError
            self._messages.append(message)
            self._changed.notify_all()
