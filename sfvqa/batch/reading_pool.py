"""The threads that read the videos to come, in order, while the model works on those that are here."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from sfvqa.batch.frame_budget import FrameBudget
from sfvqa.batch.video_ahead import VideoAhead
from sfvqa.batch.work import Work

_PATIENCE_SECONDS = 0.1  # before a reader is told again to end
_LAST_WAIT_SECONDS = 2.0  # for threads that end; native code that hangs while opening may take them longer
_MOST_WAITING = 64
"""Videos that wait for the model beside those being read: bounds what is known of them; frames are bounded apart."""


class ReadingPool:
    """Has `num_readers` videos prepared at a time, in the order of `works`; a context manager.

    `prepare` does everything for a video that needs no model, in one of the threads: `VideoAhead.arrive`, then `feed`.
    What it raises itself is raised again by `next_ready`. Everything else is called by the thread that has the model.
    """

    def __init__(
        self, works: Iterable[Work], prepare: Callable[[VideoAhead], None], *, num_readers: int, budget: FrameBudget
    ) -> None:
        self._works = deque(works)
        self._prepare = prepare
        self._budget = budget
        self._most_ahead = num_readers + _MOST_WAITING
        self._changed = threading.Condition()
        self._ahead: list[VideoAhead] = []
        self._crash: BaseException | None = None
        self._is_closed = False
        self._num_readers = num_readers
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for _ in range(self._num_readers):
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_over(self) -> bool:
        """Whether no video is left to be read or taken."""
        with self._changed:
            return not self._works and not self._ahead

    def next_ready(self, patience_seconds: float) -> VideoAhead | None:
        """The first of the videos begun that can go on; None if none can within that time.

        The first, so that few videos are seen in part; any, so that a slow one is in the way of no other.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first_ready() or self._crash, timeout=patience_seconds)
            if self._crash is not None:
                crash, self._crash = self._crash, None
                try:
                    raise crash
                finally:
                    del crash  # else error and traceback would keep each other
            return self._first_ready()

    def standing_still(self, since: float) -> list[VideoAhead]:
        """The videos in the way where none moved since then; those that only wait for memory are in no way."""
        with self._changed:
            if any(video.moved_at > since for video in self._ahead):
                return []
            return [video for video in self._ahead if not video.waits_for_memory] or list(self._ahead)

    def leave(self, video: VideoAhead) -> None:
        """Be done with a video, or give it up."""
        video.leave()
        with self._changed:
            self._ahead.remove(video)
            self._changed.notify_all()

    def give_up(self, video: VideoAhead) -> None:
        """Be done with a video whose thread may never return: another takes its place."""
        video.is_given_up = True
        self.leave(video)
        self._start()

    def again(self, work: Work) -> None:
        """Have a video read before all others that are not begun."""
        with self._changed:
            self._works.appendleft(work)
            self._changed.notify_all()

    def close(self) -> None:
        """Give up whatever is being read, and end the threads."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        deadline = time.monotonic() + _LAST_WAIT_SECONDS
        while (alive := [thread for thread in self._threads if thread.is_alive()]) and time.monotonic() < deadline:
            for video in list(self._ahead):
                video.leave()
            alive[0].join(_PATIENCE_SECONDS)
        self._ahead.clear()

    def _first_ready(self) -> VideoAhead | None:
        return next((video for video in self._ahead if video.can_go_on), None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="sfvqa-reading-ahead", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        try:
            while (video := self._begin()) is not None:
                self._prepare(video)
                if video.is_given_up:
                    return
                del video  # else the thread would hold it until the next one comes
        except BaseException as error:  # noqa: BLE001  raised again in the thread that has the model
            with self._changed:
                self._crash = error
                self._changed.notify_all()

    def _begin(self) -> VideoAhead | None:
        """The next video, once there is one and it may be begun; None when there will be none."""
        with self._changed:
            # Not bounded: what it waits for comes with the end of the batch, of which this thread is in no way.
            self._changed.wait_for(lambda: self._is_closed or (self._works and len(self._ahead) < self._most_ahead))
            if self._is_closed:
                return None
            video = VideoAhead(self._works.popleft(), self._budget, self._changed)
            self._ahead.append(video)
            return video
