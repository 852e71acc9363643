"""The threads that open and read videos ahead of the model, several at a time."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Self

from sfvqa.batch.identify import Opened, identify, not_in_time
from sfvqa.batch.item import VideoItems
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.video_ahead import Attempt, FrameBudget, VideoAhead
from sfvqa.batch.watchdog import TooLateError, within
from sfvqa.checkpoints.device import memory_errors
from sfvqa.errors import ReadTimeoutError, let_go
from sfvqa.inference.reading_ahead import start_reading
from sfvqa.inference.speech import Transcriber, Transcript
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingStrategy
from sfvqa.video.subtitles import Subtitles
from sfvqa.video.windows import WindowsReader

_GRACE_SECONDS = 5.0  # in which a reading process that hangs is killed, which says more
_PATIENCE_SECONDS = 0.1  # before a reader is told again to end
_LAST_WAIT_SECONDS = 2.0  # for threads to end; native code that hangs while opening may take longer
_MOST_WAITING = 64
"""Videos that wait for the model beside those being read: bounds what is known of them; frames are bounded apart."""


@dataclass(eq=False)
class _Course:
    """What one thread does: `attempts` at one video, or at window after window of it, which is then open once."""

    attempts: deque[Attempt]
    video: VideoReader | None = None
    windows: WindowsReader | None = None

    def close(self) -> None:
        """Close the file of windows; safe to call twice."""
        for reader in (self.windows, self.video):
            if reader is not None:
                reader.close()
        self.windows = self.video = None


def _courses(groups: Iterable[VideoItems]) -> Iterator[_Course]:
    """Each video by itself, but all windows of one together."""
    for _, together in groupby(groups, lambda group: group[0].video if group[0].is_window else id(group)):
        yield _Course(deque(map(Attempt, together)))


class ReadingPool:
    """A context manager that reads `num_readers` videos at a time, in their order, within the `budget` of frames.

    The windows of a video are read by one thread, in one pass over the file. A video whose items all have their records
    is not opened. What goes wrong with a video becomes its failure; any other error of a thread is raised by
    `next_ready`. All methods are called by the thread that has the model.
    """

    def __init__(
        self,
        answerer: VideoQA,
        groups: Iterable[VideoItems],
        keeper: RecordKeeper,
        options: BatchOptions,
    ) -> None:
        self.budget = FrameBudget(options.frames_ahead)
        self._answerer = answerer
        self._keeper = keeper
        self._options = options
        self._reading = options.reading_within_limits
        self._fit = answerer.fit(options.crop)
        self._transcriber = Transcriber(options.speech, answerer.video_cache) if options.speech else None
        self._courses = deque(_courses(groups))
        self._num_left = sum(len(course.attempts) for course in self._courses)
        self._most_ahead = options.num_readers + _MOST_WAITING
        self._changed = threading.Condition()
        self._ahead: list[VideoAhead] = []
        self._crash: BaseException | None = None
        self._is_closed = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for _ in range(self._options.num_readers):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
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

    @property
    def is_over(self) -> bool:
        """Whether no video is left to be read or taken."""
        with self._changed:
            return not self._num_left and not self._ahead

    def next_ready(self, patience_seconds: float) -> VideoAhead | None:
        """The first of the videos begun that can go on; None if none can within that time.

        The first, so that few videos are half seen; any, so that a slow one holds up no other.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._first_ready() or self._crash, timeout=patience_seconds)
            if self._crash is not None:
                crash, self._crash = self._crash, None
                try:
                    raise crash
                finally:
                    del crash  # or error and traceback would keep each other alive
            return self._first_ready()

    def standing_still(self, since: float) -> list[VideoAhead]:
        """The videos that hold up the batch where none has moved since then: not those that only wait for memory."""
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
        """Be done with a video whose thread may never return: another takes its place, and its windows."""
        video.is_given_up = True
        with self._changed:
            if left := video.following:
                self._courses.appendleft(_Course(deque(left)))
                left.clear()  # its thread has no more to do
        self.leave(video)
        self._start()

    def again(self, attempt: Attempt) -> None:
        """Have a video read before all others that are not begun."""
        with self._changed:
            self._courses.appendleft(_Course(deque([attempt])))
            self._num_left += 1
            self._changed.notify_all()

    def _first_ready(self) -> VideoAhead | None:
        return next((video for video in self._ahead if video.can_go_on), None)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="sfvqa-reading-ahead", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        course = _Course(deque())
        try:
            while (begun := self._begin(course)) is not None:
                video, course = begun
                del begun
                self._open(video, course)
                if video.is_given_up:
                    return
                del video  # or the thread would hold it until the next one comes
        except BaseException as error:  # noqa: BLE001  raised again in the thread that has the model
            with self._changed:
                self._crash = error
                self._changed.notify_all()
        finally:
            course.close()

    def _begin(self, course: _Course) -> tuple[VideoAhead, _Course] | None:
        """What is next on this course, or first on another, once it may be begun; None when there will be nothing."""
        if not course.attempts:
            course.close()
        with self._changed:
            # Unbounded: the end of the batch wakes this thread, and nothing waits for it.
            self._changed.wait_for(
                lambda: self._is_closed or ((course.attempts or self._courses) and len(self._ahead) < self._most_ahead)
            )
            if self._is_closed:
                return None
            if not course.attempts:
                course = self._courses.popleft()
            video = VideoAhead(course.attempts.popleft(), self.budget, self._changed)
            video.following = course.attempts
            self._num_left -= 1
            self._ahead.append(video)
            return video, course

    def _open(self, video: VideoAhead, course: _Course) -> None:
        """Hand over what is to be asked, and then the video's chunks or what is wrong with it."""
        opened = identify(video.attempt.items, self._options, self._keeper)
        if not opened.questions or opened.failure is not None:
            video.arrive(opened)
            return
        try:
            with memory_errors("reading the video"):
                self._read(video, opened, course)
        except Exception as error:  # noqa: BLE001  becomes the error record of each of its items
            let_go(error)
            video.arrive(replace(opened, failure=Failure.of(self._with_own_remedy(error))))

    def _read(self, video: VideoAhead, opened: Opened, course: _Course) -> None:
        options, path = self._options, video.attempt.video
        sampling = video.attempt.sampling(options.sampling)
        is_kept = self._is_kept(video.attempt)
        opened = replace(opened, sampling=sampling, source=path)
        said = self._transcriber.kept(path) if self._transcriber else None
        if said is not None:
            opened = self._with_lines(opened, said.as_subtitles)
        needs_lines = options.reads_subtitles or (self._transcriber is not None and said is None)
        if is_kept and not needs_lines:
            video.arrive(opened)
            return
        with self._opened(video.attempt, course) as reader:
            video.reader = reader
            try:
                if needs_lines:
                    lines = self._hear(video, reader) if self._transcriber else reader.subtitles()
                    opened = self._with_lines(opened, lines)
                if is_kept:
                    video.arrive(opened)
                    return
                source = start_reading(reader, sampling, self._fit, make_chunk=video.make_chunk)
                video.arrive(replace(opened, source=replace(source, chunks=video.chunks())))
                video.feed(source.chunks)
            finally:
                video.reader = None

    def _hear(self, video: VideoAhead, reader: VideoReader) -> Subtitles:
        """What is said in an open video, which may take long and counts as progress."""
        assert self._transcriber is not None
        with contextlib.closing(self._transcriber.transcribe_open(reader)) as steps:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    transcript: Transcript = end.value
                    return transcript.as_subtitles
                video.go_on()

    def _with_lines(self, opened: Opened, lines: Subtitles) -> Opened:
        prompt = replace(self._options.prompt, subtitles=lines, subtitle_tokens=self._options.subtitle_tokens)
        return replace(opened, prompt=prompt)

    def _is_kept(self, attempt: Attempt) -> bool:
        sampling = attempt.sampling(self._options.sampling)
        return self._answerer.is_kept(attempt.video, sampling, reading=self._reading, crop=self._options.crop)

    @contextlib.contextmanager
    def _opened(self, attempt: Attempt, course: _Course) -> Iterator[VideoReader]:
        """The video, open; that of windows stays so."""
        if not attempt.items[0].is_window:
            with _open_in_time(attempt.video, self._reading) as reader:
                yield reader
            return
        if course.windows is None:
            course.close()  # where planning failed the last time
            course.video = _open_in_time(attempt.video, self._reading)
            course.windows = WindowsReader(course.video, self._parts(attempt, course), self._fit)
        yield course.windows
        course.windows.open_seconds = 0.0  # which the first one waited for

    def _parts(self, attempt: Attempt, course: _Course) -> list[tuple[int, ...]]:
        """The frames of this and the following windows, but those that are answered or kept."""
        assert course.video is not None
        asked = self._options.sampling
        if asked.strategy is SamplingStrategy.SCENE:
            return []  # each is looked over by itself
        return [
            choose_unread(course.video, each.sampling(asked)).indices
            for each in (attempt, *course.attempts)
            if identify(each.items, self._options, self._keeper).questions and not self._is_kept(each)
        ]

    def _with_own_remedy(self, error: Exception) -> Exception:
        """Name the item's time limit where that is the shorter one: more of the reader's would change nothing."""
        is_shorter = self._reading.timeout_seconds < self._options.reading.timeout_seconds
        if isinstance(error, ReadTimeoutError) and is_shorter:
            return ReadTimeoutError(error.message, error.remedy.replace("--read-timeout", "--item-timeout"))
        return error


def _open_in_time(path: Path, reading: ReadOptions) -> VideoReader:
    """Open a video even where this process hangs, before there is another that opens the file and can be killed."""
    try:
        return within(
            reading.timeout_seconds + _GRACE_SECONDS,
            lambda: open_video(path, reading),
            undo=lambda reader: reader.close(),
        )
    except TooLateError:
        raise not_in_time(path, reading.timeout_seconds, "opened") from None
