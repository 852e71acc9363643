"""A batch from its items to their records: the model works on what others have read, and what fails is a record too.

Nothing is printed: what happens comes as events. The other modules: preparing and reading_pool (threads that read
ahead), video_ahead (between them and this), waiting and answering (what was seen), tally.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

from sfvqa.batch.answering import Answering
from sfvqa.batch.frame_budget import FrameBudget
from sfvqa.batch.group import group_items
from sfvqa.batch.item import Item
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.preparing import Preparer, identify, sort_out
from sfvqa.batch.reading_pool import ReadingPool
from sfvqa.batch.record import ERROR, OK, Failure, error_record, ok_record
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.batch.tally import BatchEvent, BatchSummary, ItemFinished, Stage, Tally, Working
from sfvqa.batch.video_ahead import Question, VideoAhead
from sfvqa.batch.waiting import Waiting, WaitingRoom, WholeVideo
from sfvqa.batch.watchdog import Watchdog, dump_stacks, stood_still
from sfvqa.batch.work import Work
from sfvqa.errors import DeviceLostError, ItemTimeoutError
from sfvqa.inference.answer import Answer
from sfvqa.inference.device import is_device_lost
from sfvqa.inference.encoding import EncodedVideo, EncodeProgress
from sfvqa.inference.question_answerer import VideoQuestionAnswerer
from sfvqa.wording import plural

_PATIENCE_SECONDS = 0.5  # between two events while nothing can be done
_GRACE_SECONDS = 10.0  # in which whatever is bounded in reading ends by itself, and says more


def run_batch(
    answerer: VideoQuestionAnswerer, items: Sequence[Item], journal: RecordKeeper, options: BatchOptions
) -> Generator[BatchEvent, None, BatchSummary]:
    """Answer every item that the journal does not hold, and yield what happens.

    Each video is seen once for all its items, whose records are appended as they finish, in any order. What is wrong
    with an item becomes its record; where memory runs out it is tried with fewer frames first. Closing the generator
    ends it; what is in the journal stays. Raises JournalError where no record can be written, DeviceLostError.
    """
    run = _BatchRun(answerer, items, journal, options)
    try:
        yield from run.events()
    except Exception as error:
        if not is_device_lost(error):
            raise
        raise DeviceLostError(
            f"The GPU failed: {' '.join(str(error).split())[:200]}.",
            "What was answered is kept: run the same command again, after a restart if need be.",
        ) from error
    return run.summary()


class _BatchRun:
    def __init__(
        self, answerer: VideoQuestionAnswerer, items: Sequence[Item], journal: RecordKeeper, options: BatchOptions
    ) -> None:
        self._answerer = answerer
        self._journal = journal
        self._options = options
        self._budget = FrameBudget(options.frames_ahead)
        self._pool = ReadingPool(
            map(Work, group_items(items)),
            Preparer(answerer, journal, options),
            num_readers=options.num_readers,
            budget=self._budget,
        )
        self._seeing: dict[VideoAhead, _Seeing] = {}
        self._waiting = WaitingRoom(options)
        self._watchdog = Watchdog(options.still_seconds, self._record_all)
        self._still_seconds = options.reading_within_limits.timeout_seconds + _GRACE_SECONDS
        self._answering = Answering(answerer, options, self._watchdog)
        self._began = self._finished_at = time.perf_counter()
        self._seconds = dict.fromkeys(Stage, 0.0)
        self._errors: Counter[str] = Counter()
        self._before: Counter[str] = Counter()
        self._num_items, self._num_answered = len(items), 0

    def events(self) -> Iterator[BatchEvent]:
        """Until every item is done, or there were too many failures."""
        moved_at = time.monotonic()
        with self._watchdog, self._pool:
            while (self._waiting or not self._pool.is_over) and not self._has_failed_too_often:
                with self._timed(Stage.READING):
                    video = self._pool.next_ready(0.0 if self._waiting else _PATIENCE_SECONDS)
                has_moved = video is not None or bool(self._waiting)
                if video is not None:
                    yield from self._go_on(video)
                elif self._waiting:  # rather a small batch than a model that is idle
                    yield from self._answer(self._waiting.take(self._answering.batch_size))
                while self._waiting.is_due(self._answering.batch_size) and not self._has_failed_too_often:
                    yield from self._answer(self._waiting.take(self._answering.batch_size))
                yield Working(self._tally())
                if has_moved:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > self._still_seconds:
                    yield from self._give_up_reading()
                    moved_at = time.monotonic()

    def summary(self) -> BatchSummary:
        """How it ended."""
        stopped = None
        if self._has_failed_too_often and self._tally().num_left:
            stopped = f"Stopped after {self._errors.total()} failures."
        return BatchSummary(self._tally(), self._budget.most_held, stopped)

    @property
    def _has_failed_too_often(self) -> bool:
        limit = self._options.max_failures
        return limit is not None and self._errors.total() >= limit

    def _go_on(self, video: VideoAhead) -> Iterator[BatchEvent]:
        """See what there is of a video; once it is whole, what is asked about it waits to be answered."""
        prepared = video.prepared
        assert prepared is not None
        if video not in self._seeing:
            self._before += prepared.before
        if not prepared.questions:
            self._pool.leave(video)
            return
        with self._timed(Stage.ENCODING):
            outcome = self._see(video)
        if outcome is None:
            return
        self._leave(video)
        if isinstance(outcome, EncodedVideo):
            self._waiting.add(WholeVideo(video.work, outcome, prepared.prompt), prepared.questions)
        else:
            yield from self._fail(video.work, prepared.questions, outcome, video.num_frames)

    def _give_up_reading(self) -> Iterator[BatchEvent]:
        """Where the model has waited for long, fail what has not moved either, whatever it is that its thread does."""
        seconds = self._still_seconds
        still = self._pool.standing_still(time.monotonic() - seconds)
        if still:
            dump_stacks(f"nothing was read for {plural(seconds, 'second')}")
        for video in still:
            questions = self._questions_of(video)
            self._seeing.pop(video, None)
            self._pool.give_up(video)
            yield from self._fail(video.work, questions, Failure.of(stood_still(seconds, "the video was read")), None)

    def _questions_of(self, video: VideoAhead) -> Sequence[Question]:
        if video.prepared is not None:
            return video.prepared.questions
        questions, before = sort_out(identify(video.work.group, self._options).asked, self._journal, self._options)
        self._before += before
        return questions

    def _see(self, video: VideoAhead) -> EncodedVideo | Failure | None:
        """Encode what was read, without waiting for more; None while the video is not whole."""
        try:
            while video.can_go_on:
                assert video.prepared is not None
                if video.prepared.failure is not None:
                    return video.prepared.failure
                if (encoded := self._seeing_of(video).step()) is not None:
                    return _as_asked(encoded, video)
        except Exception as error:
            if is_device_lost(error):
                raise
            return Failure.of(error)
        return None

    def _seeing_of(self, video: VideoAhead) -> "_Seeing":
        if video not in self._seeing:
            prepared, options = video.prepared, self._options
            assert prepared is not None
            assert prepared.source is not None
            steps = self._answerer.encode_progressively(
                prepared.source, prepared.sampling, reading=options.reading_within_limits, crop=options.crop
            )
            questions = prepared.questions
            self._seeing[video] = _Seeing(
                steps, options.item_timeout_seconds, lambda: self._watchdog.step("the video was encoded", questions)
            )
        return self._seeing[video]

    def _leave(self, video: VideoAhead) -> None:
        self._seeing.pop(video, None)
        self._pool.leave(video)

    def _answer(self, batch: Sequence[Waiting]) -> Iterator[BatchEvent]:
        outcomes = self._answering.answer(batch)
        while True:
            with self._timed(Stage.ANSWERING):
                found = next(outcomes, None)
            if found is None:
                return
            waiting, outcome = found
            del found
            question, video = waiting.question, waiting.video
            if isinstance(outcome, Answer):
                record = ok_record(question.item, question.item_id, outcome, self._options.settings)
                self._num_answered += 1
                yield self._finish(question, record)
            else:
                yield from self._fail(video.work, [question], outcome, len(video.encoded.indices))
            if self._has_failed_too_often:
                return

    def _fail(
        self, work: Work, questions: Sequence[Question], failure: Failure, num_frames: int | None
    ) -> Iterator[BatchEvent]:
        """Give each of them its error record; where memory ran out, have them tried with fewer frames instead."""
        if failure.fewer_frames_may_help:
            items = [question.item for question in questions]
            smaller = work.smaller(items, self._options.sampling, num_frames)
            if smaller is not None:
                self._pool.again(smaller)
                return
        for question in questions:
            self._errors[failure.kind] += 1
            yield self._finish(question, self._error_record(question, failure))

    def _record_all(self, questions: Sequence[Question], error: ItemTimeoutError) -> None:
        for question in questions:
            self._finish(question, self._error_record(question, Failure.of(error)))

    def _error_record(self, question: Question, failure: Failure) -> dict[str, object]:
        return error_record(question.item, question.item_id, failure, self._options.settings)

    def _finish(self, question: Question, record: dict[str, object]) -> ItemFinished:
        self._journal.append(record)
        self._finished_at = time.perf_counter()
        return ItemFinished(question.item, record, self._tally())

    def _tally(self) -> Tally:
        return Tally(
            num_items=self._num_items,
            num_answered=self._num_answered,
            num_failed=self._errors.total(),
            num_answered_before=self._before[OK],
            num_failed_before=self._before[ERROR],
            elapsed_seconds=time.perf_counter() - self._began,
            stage_seconds=dict(self._seconds),
            errors=dict(self._errors),
            num_frames_held=self._budget.num_held,
            still_seconds=time.perf_counter() - self._finished_at,
        )

    @contextlib.contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] += time.perf_counter() - start


class _Seeing:
    """A video while it is encoded, which must take no more than `limit_seconds`."""

    def __init__(
        self,
        steps: Generator[EncodeProgress, None, EncodedVideo],
        limit_seconds: float | None,
        watched: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._steps = steps
        self._limit_seconds = limit_seconds
        self._watched = watched
        self._seconds = 0.0

    def step(self) -> EncodedVideo | None:
        """Go on by one chunk or less; the video once it is whole. Raises ItemTimeoutError, and what encoding raises."""
        start = time.perf_counter()
        try:
            with self._watched():
                try:
                    next(self._steps)
                except StopIteration as end:
                    encoded: EncodedVideo = end.value
                    return encoded
        finally:
            self._seconds += time.perf_counter() - start
        if self._limit_seconds is not None and self._seconds > self._limit_seconds:
            raise ItemTimeoutError(
                f"The video was not encoded within {plural(self._limit_seconds, 'second')}.",
                "Allow more with --item-timeout, or use fewer frames (--frames).",
            )
        return None


def _as_asked(encoded: EncodedVideo, video: VideoAhead) -> EncodedVideo:
    """With what there is to be warned of. Raises UnreadableVideoError for another video than the one asked about."""
    assert video.prepared is not None
    file = video.prepared.file
    notes = [] if file is None else file.check()
    return replace(encoded, warnings=tuple(dict.fromkeys([*encoded.warnings, *notes, *video.work.warnings])))
