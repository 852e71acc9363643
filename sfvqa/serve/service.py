"""Many requests, one model: videos are read by threads, and one thread encodes and answers, in turns.

Requests about the same video share its reading and encoding, and those that are alike are answered in one batch. Knows
nothing of HTTP: what happens to a request is told to its Job.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from sfvqa.checkpoints.device import is_device_lost, release_memory
from sfvqa.errors import DeviceLostError, OutOfMemoryError, ServerBusyError, ServerStoppingError, SfvqaError
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.question import check_choices, check_looks, check_question
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve.request import Event, Job, Request, Work
from sfvqa.serve.sight import Sight, View

if TYPE_CHECKING:
    from sfvqa.inference.encode import EncodedVideo

_MOST_RUNS = 2  # batches being written at a time, so that a late request need not wait for a long answer
_MOST_PADDING = 1.25  # the longest video of a batch over the shortest, which is padded to it
_MOST_KEPT_PROMPTS = 4
_LAST_WAIT_SECONDS = 5.0


@dataclass(frozen=True)
class ServiceOptions:
    """How much a service takes on at a time.

    `batch_size` answers are written together; `most_requests` may be under way or wait, `num_readers` videos be read
    or wait in memory for the vision tower. `kept_bytes` of encoded videos stay in memory beside those being asked
    about.
    """

    batch_size: int = 8
    most_requests: int = 64
    num_readers: int = 2
    kept_bytes: int = 1 << 30


class Service:
    """A context manager in which `submit` takes requests, from any thread.

    What goes wrong with a request is told to its job; a GPU that fails ends the service, and `failure` says so.
    """

    def __init__(self, answerer: VideoQA, options: ServiceOptions | None = None) -> None:
        self.answerer = answerer
        self.options = options or ServiceOptions()
        self.failure: Exception | None = None
        self._changed = threading.Condition()
        self._jobs: set[Job] = set()
        self._sights: dict[View, Sight] = {}  # the least recently asked about first
        self._to_read: deque[Sight] = deque()
        self._to_encode: deque[Sight] = deque()
        self._to_answer: list[tuple[Job, Sight | None]] = []
        self._turns: deque[Generator[None, None, None]] = deque()
        self._num_runs = 0
        self._room_to_read = threading.Semaphore(self.options.num_readers)
        self._is_accepting = self._is_open = True
        self._threads = [
            threading.Thread(target=self._read_videos, name="sfvqa-reading", daemon=True)
            for _ in range(self.options.num_readers)
        ]
        self._threads.append(threading.Thread(target=self._run, name="sfvqa-model", daemon=True))

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
        for thread in self._threads:
            thread.join(_LAST_WAIT_SECONDS)

    # --- From any thread ---

    @property
    def num_requests(self) -> int:
        """How many are under way or wait."""
        with self._changed:
            return len(self._jobs)

    def submit(self, request: Request, tell: Callable[[Event], None], work: Work | None = None) -> Job:
        """Take a request, whose events are told until it is over; with `work`, that is done in place of answering.

        Raises ServerBusyError, ServerStoppingError, and UsageError, VideoError for what is wrong with it at first
        sight; hashes nothing, but looks at the file.
        """
        if work is None:
            check_question(request.question)
        if request.choices is not None:
            check_choices(request.choices)
            request.generation.check_for_choices()
        if request.generation.evidence:
            check_looks(self.answerer.checkpoint.location.name, self.answerer.checkpoint.model.config.hybrid_layers)
        view = None if request.video is None else View.of(request.video, request)
        job = Job(request, tell, work)
        with self._changed:
            if not self._is_accepting:
                raise ServerStoppingError("The server is stopping.", "Ask again once it is back.")
            if len(self._jobs) >= self.options.most_requests:
                raise ServerBusyError(
                    f"The server has {len(self._jobs)} requests to answer, and takes no more.", "Ask again later."
                )
            self._jobs.add(job)
            if view is None:
                self._to_answer.append((job, None))
            else:
                self._wait_for_video(job, view)
            self._changed.notify_all()
        return job

    def drop(self, job: Job) -> None:
        """Do no more for a request that nobody waits for; nothing if it is over."""
        with self._changed:
            job.is_dropped = True
            for sight in list(self._sights.values()):
                if job in sight.jobs:
                    sight.jobs.remove(job)
                    self._give_up_unwanted(sight)
            self._to_answer = [each for each in self._to_answer if each[0] is not job]
            self._jobs.discard(job)
            self._changed.notify_all()

    def stop_accepting(self) -> None:
        """Refuse further requests and those that wait; what is being answered goes on."""
        with self._changed:
            self._is_accepting = False
            waiting = [job for job, _ in self._to_answer]
            self._to_answer.clear()
            for sight in list(self._sights.values()):
                waiting += sight.jobs
                sight.jobs.clear()
                self._give_up_unwanted(sight)
            for job in waiting:
                self._tell_last(job, ServerStoppingError("The server is stopping.", "Ask again once it is back."))
            self._changed.notify_all()

    def cut(self) -> None:
        """End what is being answered, too: it is told that it is cut."""
        self.stop_accepting()
        with self._changed:
            for job in list(self._jobs):
                self._tell_last(job, ServerStoppingError("The server is stopping: the answer is cut.", "Ask again."))

    # --- Under the lock ---

    def _wait_for_video(self, job: Job, view: View) -> None:
        sight = self._sights.pop(view, None)
        if sight is None:
            sight = Sight(view, job.request.reading)
            self._to_read.append(sight)
        self._sights[view] = sight  # the most recently asked about, now
        if sight.encoded is None:
            sight.jobs.append(job)
        else:
            self._to_answer.append((job, sight))

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

    def _tell_last(self, job: Job, event: Event) -> None:
        if not (job.is_over or job.is_dropped):
            job.is_over = True
            job.tell(event)
        job.is_dropped = True
        self._jobs.discard(job)

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

    def _fail(self, sight: Sight, error: Exception) -> None:
        with self._changed:
            self._forget(sight)
            jobs, sight.jobs = sight.jobs, []
            for job in jobs:
                self._tell_last(job, error)

    # --- The thread that has the model ---

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._has_work)
                if not self._is_open:
                    break
                self._begin()
            if not self._turns:
                continue
            turn = self._turns.popleft()
            try:
                next(turn)
            except StopIteration:
                continue
            except Exception as error:  # noqa: BLE001  the device is lost: everything else was told to its job
                self._end_service(error)
                break
            self._turns.append(turn)
        for turn in self._turns:
            turn.close()

    def _has_work(self) -> bool:
        return bool(self._turns or self._to_encode or self._to_answer) or not self._is_open

    def _begin(self) -> None:
        """Begin to encode every video that was read, and to answer where that is possible now."""
        while self._to_encode:
            self._turns.append(self._encode(self._to_encode.popleft()))
        while self._to_answer and self._num_runs < _MOST_RUNS:
            self._num_runs += 1
            self._turns.append(self._answer(self._take()))

    def _take(self) -> list[tuple[Job, Sight | None]]:
        """The oldest request and those that can be answered with it."""
        oldest, sight = self._to_answer[0]
        alike = [
            each
            for each in self._to_answer
            if each[0].work is None
            and oldest.request.can_be_answered_with(each[0].request)
            and _are_as_long(sight, each[1])
        ]
        batch = alike[: self.options.batch_size] if oldest.work is None else [(oldest, sight)]
        self._to_answer = [each for each in self._to_answer if each not in batch]
        return batch

    def _encode(self, sight: Sight) -> Generator[None, None, None]:
        """Encode a video a step at a time; then those who wait for it are answered."""
        view, source = sight.view, sight.source
        sight.source = None
        assert source is not None
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
            self._fail(sight, error)
            return
        finally:
            del source
            self._room_to_read.release()
        with self._changed:
            sight.encoded = replace(encoded, warnings=(*encoded.warnings, *notes))
            jobs, sight.jobs = sight.jobs, []
            self._to_answer += [(job, sight) for job in jobs]
            self._make_room(sight)

    def _make_room(self, newest: Sight) -> None:
        """Forget the videos least recently asked about, down to `kept_bytes`."""
        kept = [sight for sight in self._sights.values() if sight.encoded is not None and sight is not newest]
        total = sum(sight.num_bytes for sight in (*kept, newest))
        for sight in kept:
            if total <= self.options.kept_bytes:
                break
            total -= sight.num_bytes
            self._forget(sight)

    def _answer(self, batch: list[tuple[Job, Sight | None]]) -> Generator[None, None, None]:
        (job, sight), work = batch[0], batch[0][0].work
        try:
            yield from self._answer_together(batch) if work is None else self._do(job, sight, work)
        finally:
            self._num_runs -= 1

    def _do(self, job: Job, sight: Sight | None, work: Work) -> Generator[None, None, None]:
        """Do a request's own work a step at a time, until it is over or dropped."""
        if job.is_dropped:
            return
        try:
            with contextlib.closing(work(None if sight is None else sight.take())) as steps:
                for message in steps:
                    if job.is_dropped:
                        return
                    job.tell(message)
                    yield
        except Exception as error:
            if is_device_lost(error):
                raise
            if isinstance(error, OutOfMemoryError):
                self._forget_prompts()
            self._tell_all([(job, sight)], error)
        else:
            with self._changed:
                self._tell_last(job, None)

    def _answer_together(self, batch: list[tuple[Job, Sight | None]]) -> Generator[None, None, None]:
        """Answer a batch a step at a time; what fails together is tried alone, unless it has begun to be written."""
        batch = [each for each in batch if not each[0].is_dropped]
        if not batch:
            return
        has_begun = False
        try:
            run = self._run_of(batch)
            for pieces in run.steps():
                has_begun = True
                for place, (job, _) in enumerate(batch):
                    if job.is_dropped:
                        pass  # TODO
                    elif pieces[place]:
                        job.tell(pieces[place])
                if all(job.is_dropped for job, _ in batch):
                    return
                yield
            answers = run.answers()
        except Exception as error:
            if is_device_lost(error):
                raise
            if isinstance(error, OutOfMemoryError):
                self._forget_prompts()
            if len(batch) == 1 or has_begun:
                self._tell_all(batch, error)
                return
        else:
            self._keep_prompt(batch, run)
            with self._changed:
                for (job, _), answer in zip(batch, answers, strict=True):
                    self._tell_last(job, answer)
            return
        for each in batch:  # behind the block, where the traceback and the memory it holds are gone
            yield from self._answer_together([each])

    def _run_of(self, batch: list[tuple[Job, Sight | None]]) -> AnswerRun:
        """The run of a batch; the first question about a video has its cost in its timings."""
        asked = []
        for job, sight in batch:
            request, encoded = job.request, None
            if sight is not None:
                encoded = sight.take().lying_at(request.shown_as or sight.view.file.path)
            asked.append(Asked(encoded, request.question, request.history))
        first, sight = batch[0]
        is_alone = len(batch) == 1
        return AnswerRun(
            self.answerer.checkpoint,
            asked,
            first.request.generation,
            prompt=first.request.prompt,
            choices=first.request.choices,
            kept=sight.kept if sight is not None and is_alone else None,
            keep=sight is not None and is_alone,
        )

    def _keep_prompt(self, batch: list[tuple[Job, Sight | None]], run: AnswerRun) -> None:
        """Keep the prompt of a question that was answered alone, which the next turn of a chat begins with."""
        _, sight = batch[0]
        if sight is None or len(batch) > 1:
            return
        with self._changed:
            sight.kept = run.kept
            others = [other for other in self._sights.values() if other.kept is not None and other is not sight]
            for other in others[: max(len(others) + 1 - _MOST_KEPT_PROMPTS, 0)]:
                other.kept = None

    def _forget_prompts(self) -> None:
        with self._changed:
            for sight in self._sights.values():
                sight.kept = None
        release_memory(self.answerer.checkpoint.model.device)

    def _tell_all(self, batch: Iterable[tuple[Job, Sight | None]], error: Exception) -> None:
        with self._changed:
            for job, _ in batch:
                self._tell_last(job, error)

    def _end_service(self, error: Exception) -> None:
        """Tell everybody that the device is gone, and take nothing more."""
        lost: SfvqaError = DeviceLostError(
            f"The GPU failed: {' '.join(str(error).split())[:200]}.", "Start the server again."
        )
        self.failure = lost
        with self._changed:
            self._is_accepting = False
            for job in list(self._jobs):
                self._tell_last(job, lost)


def _are_as_long(one: Sight | None, other: Sight | None) -> bool:
    """Whether two videos have about as many slow tokens, or neither question has a video."""
    if one is None or other is None:
        return one is other
    assert one.encoded is not None
    assert other.encoded is not None
    shorter, longer = sorted(len(sight.encoded.visual_tokens.slow) for sight in (one, other) if sight.encoded)
    return longer <= _MOST_PADDING * shorter
