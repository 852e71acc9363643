"""Who waits for what, decided under one lock: requests, the videos they are about, and what comes next.

Knows neither HTTP nor the model. Threads ask it what to do, and tell it what came of that.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sfvqa.errors import (
    ReaderKilledError,
    ReadTimeoutError,
    ServerBusyError,
    ServerStoppingError,
    SfvqaError,
    UsageError,
    VideoError,
)
from sfvqa.inference.encode import EncodedVideo
from sfvqa.serve.metrics import Metrics
from sfvqa.serve.request import Event, Job, to_be_told
from sfvqa.serve.sight import Sight, View, Waiting
from sfvqa.wording import plural

_MOST_RUNS = 2  # batches being written at a time: each costs the others half their speed
_WORTH_JOINING = 0.5  # who join a batch, for each of those that it keeps waiting
_MOST_UNSEEABLE = 1000
_READ_AHEAD = 2  # videos for each reader that are read, or were and wait for the vision tower


@dataclass(frozen=True)
class ServiceOptions:
    """How much a service takes on at a time.

    `batch_size` answers are written at a time, about at most `most_frames_together` frames in all; a request may be
    about `most_frames` of them. `most_requests` may be under way or wait, `num_readers` videos be read at a time, and
    as many more wait in memory for the vision tower. `kept_bytes` of encoded videos and prompts stay in memory for
    further questions. A request waits `gather_seconds` for others to come with it into a batch that is being written,
    and `patience_seconds` for the end of one that it cannot join before another begins beside it.
    """

    batch_size: int = 8
    most_requests: int = 64
    num_readers: int = 2
    most_frames: int = 128
    most_frames_together: int = 1024
    kept_bytes: int = 1 << 30
    gather_seconds: float = 0.1
    patience_seconds: float = 0.5

    def __post_init__(self) -> None:
        for name in ("batch_size", "most_requests", "num_readers", "most_frames"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}.", "It must be at least 1.")
        if self.most_frames > self.most_frames_together:
            raise UsageError(
                f"A request may be about {self.most_frames} frames, and answers about {self.most_frames_together}.",
                "Allow a request no more than answers together.",
            )


class WaitingRoom:
    """Takes requests until it is told not to; each is told its last event, or dropped.

    What is wrong with a video is told for `unseeable_seconds` to all who ask about it, unless the file changes; then it
    is read again, since its disk may have failed.
    """

    unseeable_seconds = 60.0

    def __init__(self, options: ServiceOptions, metrics: Metrics) -> None:
        self.options, self.metrics = options, metrics
        self.batch_size = options.batch_size
        self.failure: SfvqaError | None = None
        self.is_accepting = True
        self._is_open = True
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._sights: dict[View, Sight] = {}  # the least recently asked about first
        self._unseeable: dict[View, tuple[SfvqaError, float]] = {}  # until when; the latest last
        self._to_read: deque[Sight] = deque()
        self._num_ahead = 0  # videos that are being read, or wait for the vision tower, or are in it
        self._to_encode: deque[Sight] = deque()
        self._to_answer: list[Waiting] = []
        self._runs: list[list[Waiting]] = []  # batches that are being written

    # --- For those who ask ---

    @property
    def num_requests(self) -> int:
        """How many are under way or wait."""
        with self._changed:
            return len(self._jobs)

    @property
    def num_running(self) -> int:
        """How many of these have their answer written now."""
        with self._changed:
            return sum(waiting.job in self._jobs for waiting in self._written)

    @property
    def num_kept_bytes(self) -> int:
        """What encoded videos and prompts take that questions can be asked about."""
        with self._changed:
            return sum(sight.num_bytes for sight in self._sights.values())

    def admit(self, job: Job, view: View | None) -> None:
        """Take a request about what is seen so, or nothing. Raises ServerBusyError, ServerStoppingError."""
        with self._changed:
            if not self.is_accepting:
                raise self.failure or ServerStoppingError("The server is stopping.", "Ask again once it is back.")
            if len(self._jobs) >= self.options.most_requests:
                self.metrics.refused.inc()
                raise ServerBusyError(
                    f"The server has {plural(len(self._jobs), 'request')} to answer, and takes no more.",
                    "Ask again later.",
                )
            self._jobs.add(job)
            if view is None:
                self._to_answer.append(Waiting(job, None, time.monotonic()))
            else:
                self._wait_for_video(job, view)
            self._changed.notify_all()

    def drop(self, job: Job) -> None:
        """Do no more for a request that nobody waits for; nothing if it is over."""
        with self._changed:
            if job.is_over:
                return
            self.metrics.dropped.inc()
            self._forget_job(job)
            self._changed.notify_all()

    def stop_accepting(self) -> None:
        """Refuse further requests; those that were taken are answered."""
        with self._changed:
            self.is_accepting = False

    def cut(self) -> None:
        """Answer no further: who waits is told so."""
        self.stop_accepting()
        with self._changed:
            for job in list(self._jobs):
                self._tell_last(job, ServerStoppingError("The server is stopping: the answer is cut.", "Ask again."))
                self._forget_job(job)
            self._changed.notify_all()

    def close(self) -> None:
        """Let the threads end."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def fail(self, failure: SfvqaError) -> None:
        """Tell everybody that there will be no more answers, and take nothing more."""
        self.failure = failure
        with self._changed:
            self.is_accepting = False
            for job in list(self._jobs):
                self._tell_last(job, failure)

    # --- For the threads that read ---

    def next_to_read(self) -> Sight | None:
        """Wait for a video to read; None at the end. `is_read` or `is_unseeable` have to be told of it."""
        most = _READ_AHEAD * self.options.num_readers
        with self._changed:
            self._changed.wait_for(lambda: (self._to_read and self._num_ahead < most) or not self._is_open)
            if not self._is_open:
                return None
            self._num_ahead += 1
            return self._to_read.popleft()

    def is_read(self, sight: Sight) -> None:
        """A video waits for the vision tower now, if anybody waits for it."""
        with self._changed:
            if sight.is_given_up:
                self._num_ahead -= 1
            else:
                self._to_encode.append(sight)
            self._changed.notify_all()

    def is_unseeable(self, sight: Sight, cause: Exception) -> None:
        """A video cannot be read, or not encoded: who waits for it is told why."""
        error = to_be_told(cause)
        with self._changed:
            self._num_ahead -= 1
            self._forget(sight)
            if _is_lasting(cause) and not sight.is_given_up:  # which ends the reading, and is no fault of the video
                self._unseeable.pop(sight.view, None)
                self._unseeable[sight.view] = error, time.monotonic() + self.unseeable_seconds
                if len(self._unseeable) > _MOST_UNSEEABLE:
                    del self._unseeable[next(iter(self._unseeable))]
            jobs, sight.jobs = sight.jobs, []
            for job in jobs:
                if isinstance(cause, ReadTimeoutError) and _allows_more(job, sight):
                    self._wait_for_video(job, sight.view)
                else:
                    self._tell_last(job, error)
            self._changed.notify_all()

    # --- For the model's thread ---

    def wait(self, *, is_busy: bool) -> bool:
        """Wait for something to do, unless it is busy anyhow; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: is_busy or self._to_encode or self._to_answer or not self._is_open)
            return self._is_open

    def next_to_encode(self) -> Sight | None:
        """A video that was read, while there is need; `is_encoded` or `is_unseeable` have to be told of it."""
        with self._changed:
            has_room = len(self._to_answer) < 2 * self.batch_size  # or more videos would only wait, encoded
            return self._to_encode.popleft() if self._to_encode and has_room else None

    def is_encoded(self, sight: Sight, encoded: EncodedVideo | None) -> None:
        """Those who wait for a video can be answered; None if nobody waits for it any longer."""
        with self._changed:
            self._num_ahead -= 1
            if encoded is not None:
                sight.encoded = encoded
                jobs, sight.jobs = sight.jobs, []
                self._to_answer += [Waiting(job, sight, time.monotonic()) for job in jobs]
                self._make_room()
            self._changed.notify_all()

    def next_batch(self) -> list[Waiting]:
        """The request that has waited longest, and those that can be answered with it; none where it has to wait.

        `is_written` has to be told of it.
        """
        with self._changed:
            if not self._to_answer:
                return []
            oldest = self._to_answer[0]
            if self._runs and (len(self._runs) >= _MOST_RUNS or not self._has_waited(oldest)):
                return []
            batch = [oldest] if oldest.job.work is not None else self._fitting(oldest, self._written)
            if not batch or batch[0] is not oldest:
                return []
            self._runs.append(batch)
            return self._take(batch)

    def leave(self, batch: list[Waiting]) -> None:
        """Those of a batch that are over take no place any longer; for runs that let them go."""
        with self._changed:
            batch[:] = [waiting for waiting in batch if not waiting.job.is_over]

    def join(self, batch: list[Waiting]) -> list[Waiting]:
        """Those who can join a batch that is being written, in place of those who left it.

        All that are written wait while the prompts of those who join are read, so that one who comes alone waits for
        others for a while. Nobody joins behind one who cannot and has waited long: the batch ends, for that one to be
        answered.
        """
        with self._changed:
            if not (batch and self._to_answer):
                return []
            joining = self._fitting(batch[0], self._written, overtakes=False)
            late = time.monotonic() - self.options.gather_seconds
            if len(joining) < _WORTH_JOINING * len(batch) and all(waiting.since > late for waiting in joining):
                return []
            batch += joining
            return self._take(joining)

    def part(self, batch: list[Waiting], others: list[Waiting]) -> None:
        """Some of a batch are written as one of their own, beside whatever is."""
        with self._changed:
            batch[:] = [waiting for waiting in batch if waiting not in others]
            self._runs.append(others)

    def is_written(self, batch: list[Waiting]) -> None:
        """A batch is over."""
        with self._changed:
            self._runs.remove(batch)

    @contextmanager
    def kept(self) -> Iterator[list[Sight]]:
        """The encoded videos, in a block at whose end those least recently asked about go that are too much."""
        with self._changed:
            yield [sight for sight in self._sights.values() if sight.encoded is not None]
            self._make_room()

    def forget_encoded(self) -> bool:
        """Memory ran out: keep no encoded video; whether there was one."""
        with self._changed:
            has_some = any(sight.encoded is not None for sight in self._sights.values())
            self._make_room(0)
            return has_some

    def read_again(self, sight: Sight) -> None:
        """Have a video read once more, if anybody waits for it."""
        with self._changed:
            self._num_ahead -= 1
            if not sight.is_given_up:
                self._to_read.append(sight)
            self._changed.notify_all()

    def take_less(self, batch_size: int) -> None:
        """Memory ran out: answer fewer at a time from now on, and keep no prompt that is kept now."""
        with self._changed:
            self.batch_size = max(min(self.batch_size, batch_size), 1)
            for sight in self._sights.values():
                sight.kept = None

    def tell_last(self, job: Job, event: Event) -> None:
        """Tell a request that it is over, unless it is."""
        with self._changed:
            self._tell_last(job, event)

    # --- Under the lock ---

    @property
    def _written(self) -> list[Waiting]:
        return [waiting for run in self._runs for waiting in run]

    def _fitting(self, first: Waiting, beside: Sequence[Waiting], *, overtakes: bool = True) -> list[Waiting]:
        """Those that can be answered with a request, beside others."""
        rows = self.batch_size - len(beside)
        frames = self.options.most_frames_together - sum(waiting.num_frames for waiting in beside)
        fitting: list[Waiting] = []
        for waiting in self._to_answer:
            if len(fitting) < rows and waiting.num_frames <= frames and first.fits(waiting):
                fitting.append(waiting)
                frames -= waiting.num_frames
            elif not overtakes and self._has_waited(waiting):
                break
        return fitting

    def _has_waited(self, waiting: Waiting) -> bool:
        return time.monotonic() - waiting.since >= self.options.patience_seconds

    def _take(self, batch: list[Waiting]) -> list[Waiting]:
        self._to_answer = [waiting for waiting in self._to_answer if waiting not in batch]
        return batch

    def _wait_for_video(self, job: Job, view: View) -> None:
        error, until = self._unseeable.get(view, (None, 0.0))
        if error is not None and time.monotonic() < until:
            self._tell_last(job, error)
            return
        sight = self._sights.pop(view, None)
        if sight is None:
            sight = Sight(view, job.request.reading, job.request.kept_open)
            self._to_read.append(sight)
        self._sights[view] = sight  # the most recently asked about, now
        if sight.encoded is None:
            sight.jobs.append(job)
        else:
            self._to_answer.append(Waiting(job, sight, time.monotonic()))

    def _forget_job(self, job: Job) -> None:
        job.is_over = True
        self._jobs.discard(job)
        self._to_answer = [waiting for waiting in self._to_answer if waiting.job is not job]
        for sight in list(self._sights.values()):
            if job in sight.jobs:
                sight.jobs.remove(job)
                self._give_up_unwanted(sight)

    def _give_up_unwanted(self, sight: Sight) -> None:
        """Neither read nor encode a video that nobody waits for."""
        if sight.jobs or sight.encoded is not None:
            return
        self._forget(sight)
        if sight in self._to_read:
            self._to_read.remove(sight)
        if sight in self._to_encode:
            self._to_encode.remove(sight)
            self._num_ahead -= 1
        sight.cancel()

    def _forget(self, sight: Sight) -> None:
        if self._sights.get(sight.view) is sight:
            del self._sights[sight.view]

    def _make_room(self, most_bytes: int | None = None) -> None:
        """Forget the videos least recently asked about, with what is kept of their prompts.

        most_bytes: what may be left, None for `kept_bytes`.
        """
        limit = self.options.kept_bytes if most_bytes is None else most_bytes
        kept = [sight for sight in self._sights.values() if sight.encoded is not None]
        total = sum(sight.num_bytes for sight in kept)
        for sight in kept:
            if total <= limit:
                break
            total -= sight.num_bytes
            sight.kept = None
            self._forget(sight)

    def _tell_last(self, job: Job, event: Event) -> None:
        if job.is_over:
            return
        job.is_over = True
        self._jobs.discard(job)
        if isinstance(event, Exception):
            event = to_be_told(event)
            self.metrics.failed.labels(type(event).__name__).inc()
        job.tell(event)


def _allows_more(job: Job, sight: Sight) -> bool:
    """Whether a request gives the reading more time than the one had that it was read for."""
    return job.request.reading.timeout_seconds > sight.reading.timeout_seconds


def _is_lasting(error: Exception) -> bool:
    """Whether it is about the video, whoever reads it, for how long, and whether somebody kills the process."""
    return isinstance(error, VideoError) and not isinstance(error, ReadTimeoutError | ReaderKilledError)
