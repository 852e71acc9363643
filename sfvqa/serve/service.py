"""Many requests, one model: videos are read by threads, and one thread encodes and answers, in turns.

Requests about the same video share its reading and encoding, and those that are alike are answered in one batch. Knows
nothing of HTTP: what happens to a request is told to its Job.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from sfvqa.checkpoints.device import is_device_lost, release_memory
from sfvqa.errors import (
    DeviceLostError,
    OutOfMemoryError,
    PromptTooLongError,
    ReaderKilledError,
    ReadTimeoutError,
    ServerBusyError,
    ServerError,
    ServerStoppingError,
    SfvqaError,
    UsageError,
    VideoError,
)
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.question import check_choices, check_looks, check_question
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.metrics import Metrics
from sfvqa.serve.request import Event, Job, Request, Work, to_be_told
from sfvqa.serve.sight import Sight, View, Waiting
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.engine import KeptPrompt

_MOST_RUNS = 2  # batches being written at a time: each costs the others half their speed
_MOST_CHARACTERS_A_TOKEN = 16  # more than any text has, so that none too long is tokenised
_MOST_UNSEEABLE = 1000
_READ_AHEAD = 2  # videos for each reader that are read, or were and wait for the vision tower


@dataclass(frozen=True)
class ServiceOptions:
    """How much a service takes on at a time.

    `batch_size` answers are written at a time, about at most `most_frames_together` frames in all; a request may be
    about `most_frames` of them. `most_requests` may be under way or wait, `num_readers` videos be read at a time, and
    as many more wait in memory for the vision tower. `kept_bytes` of encoded videos and prompts stay in memory for
    further questions. A request waits `patience_seconds` for the batch that is being written before another one begins
    beside it.
    """

    batch_size: int = 8
    most_requests: int = 64
    num_readers: int = 2
    most_frames: int = 128
    most_frames_together: int = 1024
    kept_bytes: int = 1 << 30
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


class Service:
    """A context manager in which `submit` takes requests, from any thread.

    What goes wrong with a request is told to its job; what no request can go on after, a GPU that fails, ends the
    service, and `failure` says so. What is wrong with a video is told for `unseeable_seconds` to all who ask about it,
    unless the file changes; then it is read again, since its disk may have failed. Leaving the block waits
    `last_wait_seconds` for the threads; `has_ended` says whether all have.
    """

    last_wait_seconds = 10.0
    unseeable_seconds = 60.0

    def __init__(self, answerer: VideoQA, options: ServiceOptions | None = None) -> None:
        self.answerer = answerer
        self.options = options or ServiceOptions()
        self.metrics = Metrics()
        self.failure: SfvqaError | None = None
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._sights: dict[View, Sight] = {}  # the least recently asked about first
        self._unseeable: dict[View, tuple[SfvqaError, float]] = {}  # until when; the latest last
        self._to_read: deque[Sight] = deque()
        self._to_encode: deque[Sight] = deque()
        self._to_answer: list[Waiting] = []
        self._turns: deque[Generator[None, None, None]] = deque()
        self._is_encoding = False
        self._written: list[Waiting] = []  # by all runs
        self._num_runs = 0
        self._batch_size = self.options.batch_size
        self._room_to_read = threading.Semaphore(_READ_AHEAD * self.options.num_readers)
        self._is_accepting = self._is_open = True
        self._threads = [
            threading.Thread(target=self._read_videos, name="sfvqa-reading", daemon=True)
            for _ in range(self.options.num_readers)
        ]
        self._threads.append(threading.Thread(target=self._run, name="sfvqa-model", daemon=True))
        self.metrics.show("sfvqa_running", "Answers being written.", lambda: self.num_running)
        self.metrics.show("sfvqa_waiting", "Requests before that.", lambda: self.num_requests - self.num_running)
        self.metrics.show("sfvqa_kept_bytes", "Encoded videos and prompts in memory.", lambda: self.num_kept_bytes)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        self._room_to_read.release(len(self._threads))
        deadline = time.monotonic() + self.last_wait_seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    # --- From any thread ---

    @property
    def has_ended(self) -> bool:
        """Whether no thread is left, in the middle of a step of the model, say."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def is_accepting(self) -> bool:
        """Whether requests are taken."""
        return self._is_accepting

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

    def submit(self, request: Request, tell: Callable[[Event], None], work: Work | None = None) -> Job:
        """Take a request, whose events are told until it is over; with `work`, that is done in place of answering.

        Raises ServerBusyError, ServerStoppingError, and UsageError, VideoError for what is wrong with it at first
        sight; hashes nothing, but looks at the file.
        """
        if work is None:
            self._check(request)
        view = None if request.video is None else View.of(request.video, request)
        job = Job(request, tell, work)
        with self._changed:
            if not self._is_accepting:
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
        return job

    def drop(self, job: Job) -> None:
        """Do no more for a request that nobody waits for; nothing if it is over."""
        with self._changed:
            if job.is_over or job.is_dropped:
                return
            self.metrics.dropped.inc()
            self._forget_job(job)
            self._changed.notify_all()

    def stop_accepting(self) -> None:
        """Refuse further requests; those that were taken are answered."""
        with self._changed:
            self._is_accepting = False

    def cut(self) -> None:
        """Answer no further: who waits is told so."""
        self.stop_accepting()
        with self._changed:
            for job in list(self._jobs):
                self._tell_last(job, ServerStoppingError("The server is stopping: the answer is cut.", "Ask again."))
                self._forget_job(job)
            self._changed.notify_all()

    def _check(self, request: Request) -> None:
        check_question(request.question)
        most, model = self.options.most_frames, self.answerer.checkpoint.model
        if request.num_frames > most:
            raise UsageError(f"{request.num_frames} frames are asked for.", f"This server looks at {most} at most.")
        positions = int(model.config.decoder_config.max_position_embeddings)
        if request.num_characters > positions * _MOST_CHARACTERS_A_TOKEN:
            raise PromptTooLongError(
                f"The request has {request.num_characters:,} characters, and the model {positions:,} positions.",
                "Ask a shorter question, or leave out earlier turns.",
            )
        if request.choices is not None:
            check_choices(request.choices)
            request.generation.check_for_choices()
        if request.generation.evidence:
            check_looks(self.answerer.checkpoint.location.name, model.config.hybrid_layers)

    # --- Under the lock ---

    def _wait_for_video(self, job: Job, view: View) -> None:
        error, until = self._unseeable.get(view, (None, 0.0))
        if error is not None and time.monotonic() < until:
            self._tell_last(job, error)
            return
        sight = self._sights.pop(view, None)
        if sight is None:
            sight = Sight(view, job.request.reading)
            self._to_read.append(sight)
        self._sights[view] = sight  # the most recently asked about, now
        if sight.encoded is None:
            sight.jobs.append(job)
        else:
            self._to_answer.append(Waiting(job, sight, time.monotonic()))

    def _forget_job(self, job: Job) -> None:
        job.is_dropped = True
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
            self._room_to_read.release()
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
        if job.is_over or job.is_dropped:
            return
        job.is_over = True
        self._jobs.discard(job)
        if isinstance(event, Exception):
            event = to_be_told(event)
            self.metrics.failed.labels(type(event).__name__).inc()
        job.tell(event)

    # --- The threads that read ---

    def _read_videos(self) -> None:
        while True:
            self._room_to_read.acquire()
            with self._changed:
                self._changed.wait_for(lambda: self._to_read or not self._is_open)
                if not self._is_open:
                    return
                sight = self._to_read.popleft()
            try:
                sight.read(self.answerer)
            except Exception as error:  # noqa: BLE001  told to all who wait for the video
                self._fail(sight, error)
                self._room_to_read.release()
                continue
            with self._changed:
                if sight.is_given_up:
                    self._room_to_read.release()
                else:
                    self._to_encode.append(sight)
                    self._changed.notify_all()
            del sight  # or the thread would hold its frames until the next one comes

    def _fail(self, sight: Sight, cause: Exception) -> None:
        error = to_be_told(cause)
        with self._changed:
            self._forget(sight)
            if _is_lasting(cause):
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

    # --- The thread that has the model ---

    def _run(self) -> None:
        try:
            while self._begin():
                turn = self._turns.popleft()
                try:
                    next(turn)
                except StopIteration:
                    continue
                self._turns.append(turn)
        except Exception as error:  # noqa: BLE001  the device is lost: everything else was told to its job
            self._end_service(error)
        for turn in self._turns:
            turn.close()

    def _begin(self) -> bool:
        """Begin what can be begun, once there is something to do; False at the end of the service."""
        with self._changed:
            self._changed.wait_for(lambda: self._turns or self._to_encode or self._to_answer or not self._is_open)
            if not self._is_open:
                return False
            has_room = len(self._to_answer) < 2 * self._batch_size  # or more videos would only wait, encoded
            if self._to_encode and not self._is_encoding and has_room:
                self._is_encoding = True
                self._turns.append(self._encode(self._to_encode.popleft()))
            while batch := self._take():
                self._num_runs += 1
                self._written += batch
                self._turns.append(self._answer(batch))
            return True

    def _take(self) -> list[Waiting]:
        """The request that has waited longest, and those that can be answered with it; none where it has to wait."""
        if not self._to_answer:
            return []
        oldest = self._to_answer[0]
        has_waited = time.monotonic() - oldest.since >= self.options.patience_seconds
        if self._num_runs and (self._num_runs == _MOST_RUNS or not has_waited):
            return []
        if oldest.job.work is not None:  # which takes what it takes, as it would in a process of its own
            return [self._to_answer.pop(0)]
        rows = self._batch_size - len(self._written)
        frames = self.options.most_frames_together - sum(waiting.num_frames for waiting in self._written)
        batch: list[Waiting] = []
        for waiting in self._to_answer:
            if len(batch) < rows and waiting.num_frames <= frames and oldest.fits(waiting):
                batch.append(waiting)
                frames -= waiting.num_frames
            elif waiting is oldest:
                return []
        self._to_answer = [waiting for waiting in self._to_answer if waiting not in batch]
        return batch

    def _encode(self, sight: Sight) -> Generator[None, None, None]:
        """Encode a video a step at a time; then those who wait for it are answered."""
        view, source = sight.view, sight.source
        sight.source = None
        assert source is not None
        is_read_again = False
        try:
            steps = self.answerer.encode_progressively(source, view.sampling, reading=sight.reading, crop=view.crop)
            while True:
                try:
                    progress = next(steps)
                except StopIteration as end:
                    encoded: EncodedVideo = end.value
                    break
                if sight.is_given_up:
                    steps.close()
                    return
                sight.tell(progress)
                yield
            notes = view.file.check()
        except Exception as error:
            if is_device_lost(error):
                raise
            is_read_again = isinstance(error, OutOfMemoryError) and not sight.is_read_again and self._has_encoded
            if not is_read_again:
                self._fail(sight, error)
                return
        finally:
            del source
            self._is_encoding = False
            self._room_to_read.release()
        if is_read_again:  # only here, behind the block, is the error's traceback gone, with the memory it held
            self._read_again(sight)
            return
        with self._changed:
            sight.encoded = replace(encoded, warnings=(*encoded.warnings, *notes))
            jobs, sight.jobs = sight.jobs, []
            self._to_answer += [Waiting(job, sight, time.monotonic()) for job in jobs]
            self._make_room()

    def _read_again(self, sight: Sight) -> None:
        """Memory ran out while a video was encoded: forget those that are kept, and try once more."""
        sight.is_read_again = True
        with self._changed:
            self._make_room(0)
            if not sight.is_given_up:
                self._to_read.append(sight)
                self._changed.notify_all()
        release_memory(self.answerer.checkpoint.model.device)

    def _answer(self, batch: list[Waiting]) -> Generator[None, None, None]:
        work = batch[0].job.work
        try:
            yield from self._answer_together(batch) if work is None else self._do(batch[0], work)
        finally:
            self._num_runs -= 1
            self._written = [waiting for waiting in self._written if waiting not in batch]

    def _do(self, waiting: Waiting, work: Work) -> Generator[None, None, None]:
        """Do a request's own work a step at a time, until it is over or dropped."""
        job, encoded = waiting.job, waiting.encoded
        if waiting.sight is not None:
            waiting.sight.pay()
        try:
            with contextlib.closing(work(encoded)) as steps:
                for message in steps:
                    if job.is_dropped:
                        return
                    job.tell(message)
                    yield
        except Exception as error:
            if is_device_lost(error):
                raise
            if isinstance(error, OutOfMemoryError):
                self._take_less(self._batch_size)
            self._tell_all([waiting], error)
        else:
            with self._changed:
                self._tell_last(job, None)

    def _answer_together(self, batch: Sequence[Waiting]) -> Generator[None, None, None]:
        """Answer a batch a step at a time; what fails together is tried alone, or by halves where memory ran out."""
        batch = [waiting for waiting in batch if not (waiting.job.is_dropped or waiting.job.is_over)]
        if not batch:
            return
        try:
            yield from self._write(batch)
        except Exception as error:
            if is_device_lost(error):
                raise
            ran_out = isinstance(error, OutOfMemoryError)
            if len(batch) == 1 and not (ran_out and self._has_kept):
                self._tell_all(batch, error)
                return
        else:
            return
        # Only here, behind the block, is the error's traceback gone, and with it the memory that its frames held.
        if ran_out:
            self._take_less(len(batch) // 2 if len(batch) > 1 else self._batch_size)
        size = max(len(batch) // 2, 1) if ran_out else 1
        for start in range(0, len(batch), size):
            yield from self._answer_together(batch[start : start + size])

    def _write(self, batch: Sequence[Waiting]) -> Generator[None, None, None]:
        beginnings = [sight.kept for sight in {waiting.sight for waiting in batch} if sight and sight.kept]
        run = self._run_of(batch, beginnings)
        jobs = [waiting.job for waiting in batch]
        for job in jobs:
            job.begin()
        for pieces in run.steps():
            for place, job in enumerate(jobs):
                if job.is_dropped:
                    run.end(place)
                elif not job.is_over:
                    job.write(pieces[place])
                    if run.is_over(place):
                        self._finish(batch[place], run, place)
            yield
        for place, job in enumerate(jobs):
            if not (job.is_dropped or job.is_over):  # it could not go on
                self._finish(batch[place], run, place)
        self._keep_prompts(batch, run, beginnings)

    def _run_of(self, batch: Sequence[Waiting], beginnings: "list[KeptPrompt]") -> AnswerRun:
        """The run of a batch; the first question about a video has its cost in its timings."""
        asked, seen = [], set[Sight]()
        for waiting in batch:
            request, sight, encoded = waiting.job.request, waiting.sight, waiting.encoded
            if sight is not None and encoded is not None:
                encoded = encoded.paid() if sight in seen else encoded
                encoded = encoded.lying_at(request.shown_as or request.video or sight.view.file.path)
                seen.add(sight)
            asked.append(Asked(encoded, request.question, request.history))
        first, sight = batch[0].job.request, batch[0].sight if len(batch) == 1 else None
        return AnswerRun(
            self.answerer.checkpoint,
            asked,
            first.generation,
            prompt=first.prompt,
            choices=first.choices,
            kept=None if sight is None else sight.kept,
            keep=sight is not None,
            beginnings=beginnings,
        )

    def _finish(self, waiting: Waiting, run: AnswerRun, place: int) -> None:
        answer = run.answer(place)
        with self._changed:
            if waiting.sight is not None:
                waiting.sight.pay()
            if answer.error is None:
                self.metrics.answered(waiting.job, answer)
            self._tell_last(waiting.job, answer.error or answer)

    def _keep_prompts(self, batch: Sequence[Waiting], run: AnswerRun, beginnings: "Sequence[KeptPrompt]") -> None:
        """Keep what the next question about each video begins with; of one answered alone the next turn of a chat."""
        kept = {id(prompt.visual_tokens): prompt for prompt in beginnings}
        with self._changed:
            for sight in {waiting.sight for waiting in batch}:
                if sight is not None and sight.encoded is not None:
                    alone = run.kept if len(batch) == 1 else None
                    sight.kept = alone or kept.get(id(sight.encoded.visual_tokens))
            self._make_room()

    @property
    def _has_kept(self) -> bool:
        with self._changed:
            return any(sight.kept is not None for sight in self._sights.values())

    @property
    def _has_encoded(self) -> bool:
        with self._changed:
            return any(sight.encoded is not None for sight in self._sights.values())

    def _take_less(self, batch_size: int) -> None:
        """Memory ran out: answer fewer at a time from now on, and keep no prompt that is kept now."""
        with self._changed:
            self._batch_size = max(min(self._batch_size, batch_size), 1)
            for sight in self._sights.values():
                sight.kept = None
        release_memory(self.answerer.checkpoint.model.device)

    def _tell_all(self, batch: Sequence[Waiting], error: Exception) -> None:
        with self._changed:
            for waiting in batch:
                self._tell_last(waiting.job, error)

    def _end_service(self, error: Exception) -> None:
        """Tell everybody that there will be no more answers, and take nothing more."""
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if is_device_lost(error):
            failure: SfvqaError = DeviceLostError(f"The GPU failed: {reason}.", "Start the server again.")
        else:
            to_be_told(error)  # for the log
            failure = ServerError(f"The server failed: {reason}.", "Start it again, and report it.")
        self.failure = failure
        with self._changed:
            self._is_accepting = False
            for job in list(self._jobs):
                self._tell_last(job, failure)


def _allows_more(job: Job, sight: Sight) -> bool:
    """Whether a request gives the reading more time than the one had that it was read for."""
    return job.request.reading.timeout_seconds > sight.reading.timeout_seconds


def _is_lasting(error: Exception) -> bool:
    """Whether it is about the video, whoever reads it, for how long, and whether somebody kills the process."""
    return isinstance(error, VideoError) and not isinstance(error, ReadTimeoutError | ReaderKilledError)
