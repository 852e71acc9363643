"""One video between the thread that reads it and the one that has the model: what is known of it, then its chunks."""

import threading
import time
from collections import Counter, deque
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.batch.frame_budget import FrameBudget, NoLongerWantedError
from sfvqa.batch.item import Item
from sfvqa.batch.record import Failure
from sfvqa.batch.work import Work
from sfvqa.inference.being_read import VideoBeingRead
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.reading_ahead import Chunk, Reading
from sfvqa.video.readers.file_state import FileState
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
    with `sampling`; None where no question is left or there is a `failure`. `file` is what the items' ids were made of.
    """

    questions: tuple[Question, ...]
    before: Counter[str]
    prompt: PromptOptions
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    source: VideoBeingRead | Path | None = None
    failure: Failure | None = None
    file: FileState | None = None


class VideoAhead:
    """`prepared` and then chunks, put here by the thread that reads and taken by the one that has the model.

    `changed` is notified of whatever comes. Once the video is given up (`leave`), nothing comes any more, and what is
    here goes. `reader` is set while a file is open; `num_frames` once it is known how many will be read. `moved_at` is
    when the thread that reads last got on with it, by the monotonic clock; `is_given_up` once it never may again.
    """

    def __init__(self, work: Work, budget: FrameBudget, changed: threading.Condition) -> None:
        self.work = work
        self.prepared: Prepared | None = None
        self.reader: VideoReader | None = None
        self.num_frames: int | None = None
        self.moved_at = time.monotonic()
        self.is_wanted = True
        self.is_given_up = False
        self.waits_for_memory = False
        self._budget = budget
        self._changed = changed
        self._messages: deque[ReadProgress | Chunk] = deque()
        self._facts: ClipFacts | None = None
        self._progress = ReadProgress(0, 0)
        self._found_nothing = False

    def make_chunk(self, shape: tuple[int, ...]) -> Chunk:
        """Memory for the thread that reads. NoLongerWantedError once the video is given up."""
        self.waits_for_memory = True
        try:
            return self._budget.make_chunk(shape, lambda: self.is_wanted)
        finally:
            self.waits_for_memory = False

    def arrive(self, prepared: Prepared) -> None:
        """Tell that the video can be begun with, or that it failed; then what was read of it goes at once."""
        with self._changed:
            self.prepared = prepared
            if prepared.failure is not None:
                self._messages.clear()
            self._moved()

    def feed(self, chunks: Reading) -> None:
        """Run reading to its end, or until the video is given up. Raises what reading raises.

        The thread that calls this waits while there is no room for frames.
        """
        try:
            while True:
                try:
                    message = next(chunks)
                except StopIteration as end:
                    self._end(end.value)
                    return
                self._put(message)
                del message  # else this thread would hold a chunk that the model is done with
        except NoLongerWantedError:
            return

    @property
    def can_go_on(self) -> bool:
        """Whether the thread that has the model need not wait for this video now.

        It need not until `chunks` was asked and had nothing to give: how much is asked of it, and what is done after
        its end, is for whoever takes the chunks to know.
        """
        if self.prepared is None:
            return False
        if self.prepared.failure is not None:
            return True
        return bool(self._messages) or self._facts is not None or not self._found_nothing

    def chunks(self) -> Generator[ReadProgress | Chunk, None, ClipFacts]:
        """What was read, for the thread that has the model, which never waits here.

        Where nothing has come it is given the last progress again, and the video cannot go on until something comes.
        """
        while True:
            with self._changed:
                self._found_nothing = not self._messages
                if self._found_nothing and self._facts is not None:
                    return self._facts
            if self._found_nothing:
                yield self._progress
                continue
            if isinstance(self._messages[0], ReadProgress):
                self._progress = self._messages[0]
            yield self._messages.popleft()  # in no variable: this generator is left where it stands when a video fails

    def leave(self) -> None:
        """Give the video up, or be done with it: its reading ends, and its frames go."""
        with self._changed:
            self.is_wanted = False
            self._messages.clear()
            self._changed.notify_all()
        self._budget.wake()
        if (reader := self.reader) is not None:
            reader.cancel()

    def _put(self, message: ReadProgress | Chunk) -> None:
        with self._changed:
            if not self.is_wanted:
                raise NoLongerWantedError
            if isinstance(message, ReadProgress):
                self.num_frames = message.total if message.stage is ReadStage.READ else None
            self._messages.append(message)
            self._moved()

    def _end(self, facts: ClipFacts) -> None:
        with self._changed:
            self._facts = facts
            self._moved()

    def _moved(self) -> None:
        self.moved_at = time.monotonic()
        self._changed.notify_all()
