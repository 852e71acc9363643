"""A video between the thread that reads it and the one that has the model, and the memory for all of their frames."""

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.batch.identify import Opened
from sfvqa.batch.item import Item, VideoItems
from sfvqa.inference.reading_ahead import Chunk, Reading
from sfvqa.video.clip import ClipFacts
from sfvqa.video.reading import ReadProgress, ReadStage
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy

if TYPE_CHECKING:
    from sfvqa.video.readers import VideoReader

_MOST_HALVINGS = 3  # down to an eighth of the frames
_PATIENCE_SECONDS = 1.0  # between two looks at whether memory is still wanted, and whether there is some


@dataclass(frozen=True)
class Attempt:
    """A video to be seen for its `items`; `warnings` go with every answer.

    `num_frames` is None for as many as were asked for; after memory ran out it is fewer, halved `num_halvings` times.
    """

    items: VideoItems
    num_frames: int | None = None
    num_halvings: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def video(self) -> Path:
        """Where the video is."""
        return self.items[0].video

    def sampling(self, asked: SamplingOptions) -> SamplingOptions:
        """The frames to take, from what was asked for all videos. UsageError for a range that cannot be."""
        start, end = self.items[0].start_seconds, self.items[0].end_seconds
        return replace(
            asked,
            num_frames=self.num_frames or asked.num_frames,
            start_seconds=asked.start_seconds if start is None else start,
            end_seconds=asked.end_seconds if end is None else end,
        )

    def smaller(self, items: Iterable[Item], asked: SamplingOptions, num_available: int | None) -> "Attempt | None":
        """Another attempt for some of the items, with half the frames of which a video may have `num_available`.

        None below an eighth of them, or where the frames were given one by one.
        """
        before = min(self.num_frames or asked.num_frames, num_available or asked.num_frames)
        if self.num_halvings == _MOST_HALVINGS or before < 2 or asked.strategy is SamplingStrategy.TIMESTAMPS:
            return None
        return Attempt(
            tuple(items),
            num_frames=before // 2,
            num_halvings=self.num_halvings + 1,
            warnings=(
                f"Memory ran out with {before} frames; {before // 2} {'was' if before < 4 else 'were'} looked at.",
            ),
        )


class NoLongerWantedError(Exception):
    """The video was given up while its thread waited for memory: ends the reading, and nobody is told."""


class FrameBudget:
    """Hands out memory for chunks while at most `num_frames` frames of it are alive, whoever holds them.

    A chunk's frames are given back when the last reference to its memory goes. `num_held` frames are alive now;
    `most_held` is the most there were at a time. Safe to use from several threads.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.num_held = 0
        self.most_held = 0
        # Reentrant, since garbage may be collected, and a chunk go, while its own thread holds the lock.
        self._changed = threading.Condition()

    def make_chunk(self, shape: tuple[int, ...], is_wanted: Callable[[], bool]) -> Chunk:
        """Memory `[t, H, W, 3]`, once there is room for its frames. NoLongerWantedError once it is not wanted."""
        with self._changed:
            while self.num_held + shape[0] > self.num_frames and is_wanted():
                self._changed.wait(_PATIENCE_SECONDS)
            if not is_wanted():
                raise NoLongerWantedError
            self.num_held += shape[0]
            self.most_held = max(self.most_held, self.num_held)
        try:
            chunk = np.empty(shape, np.uint8)
        except MemoryError:
            self._give_back(shape[0])
            raise
        weakref.finalize(chunk, self._give_back, shape[0]).atexit = False
        return chunk

    def wake(self) -> None:
        """Have every thread that waits check again whether its memory is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def _give_back(self, num_frames: int) -> None:
        with self._changed:
            self.num_held -= num_frames
            self._changed.notify_all()


class VideoAhead:
    """`opened` and then chunks, put here by the thread that reads and taken by the one that has the model.

    `changed` is notified of all that comes. After `leave` nothing comes any more, and what is here goes. `reader` is
    set while a file is open; `num_frames` once it is known how many will be read. `moved_at` is when the reading thread
    last made progress, by the monotonic clock; `is_given_up` once it never may again; `following` are the windows of
    the same video that it is to read next.
    """

    def __init__(self, attempt: Attempt, budget: FrameBudget, changed: threading.Condition) -> None:
        self.attempt = attempt
        self.following: deque[Attempt] | None = None
        self.opened: Opened | None = None
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
        """Memory for the reading thread. NoLongerWantedError once the video is given up."""
        self.waits_for_memory = True
        try:
            return self._budget.make_chunk(shape, lambda: self.is_wanted)
        finally:
            self.waits_for_memory = False

    def arrive(self, opened: Opened) -> None:
        """Hand over the opened video, or that it failed; then what was read of it goes at once."""
        with self._changed:
            self.opened = opened
            if opened.failure is not None:
                self._messages.clear()
            self._moved()

    def feed(self, chunks: Reading) -> None:
        """Read to the end, or until the video is given up; waits while memory is full. Raises what reading raises."""
        with contextlib.suppress(NoLongerWantedError):
            while True:
                try:
                    message = next(chunks)
                except StopIteration as end:
                    with self._changed:
                        self._facts = end.value
                        self._moved()
                    return
                with self._changed:
                    if not self.is_wanted:
                        return
                    if isinstance(message, ReadProgress):
                        self.num_frames = message.total if message.stage is ReadStage.READ else None
                    self._messages.append(message)
                    self._moved()
                del message  # or this thread would hold a chunk that the model is done with

    @property
    def can_go_on(self) -> bool:
        """Whether the model's thread has something to do here: always, until `chunks` was asked and had nothing."""
        if self.opened is None:
            return False
        if self.opened.failure is not None:
            return True
        return bool(self._messages) or self._facts is not None or not self._found_nothing

    def chunks(self) -> Generator[ReadProgress | Chunk, None, ClipFacts]:
        """What was read, for the model's thread, which never waits here.

        Where nothing has come it yields the last progress again, and the video cannot go on until something comes.
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

    def _moved(self) -> None:
        self.moved_at = time.monotonic()
        self._changed.notify_all()
