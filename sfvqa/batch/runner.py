"""A batch from its items to their records: the model works on what other threads have read, and failures are records.

A video is read ahead (reading_pool, video_ahead) and encoded here; its questions wait to be answered with others
(answer_queue). Prints nothing: what happens comes as events (tally).
"""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from sfvqa.batch.answer_queue import AnswerQueue, SeenVideo
from sfvqa.batch.identify import identify
from sfvqa.batch.item import Item, Question, group_items
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.reading_pool import ReadingPool
from sfvqa.batch.record import Failure, ok_record
from sfvqa.batch.tally import BatchEvent, Counts, Stage, Tally, Working
from sfvqa.batch.video_ahead import Attempt, VideoAhead
from sfvqa.batch.watchdog import Watchdog, dump_stacks, no_progress
from sfvqa.checkpoints.device import is_device_lost
from sfvqa.errors import DeviceLostError, ItemTimeoutError, let_go
from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.video_qa import VideoQA
from sfvqa.wording import plural

_PATIENCE_SECONDS = 0.5  # between two events while there is nothing to do
_GRACE_SECONDS = 10.0  # in which whatever is bounded in reading ends by itself, and says more


def run_batch(
    answerer: VideoQA, items: Sequence[Item], journal: RecordKeeper, options: BatchOptions
) -> Generator[BatchEvent, None, Tally]:
    """Answer every item that the journal does not hold, and yield what happens.

    Each video is seen once for all its items, whose records are appended as they finish, in any order. What goes wrong
    with an item becomes its record; where memory runs out it is tried with fewer frames first. Closing the generator
    ends the batch; what is in the journal stays. Raises JournalError where no record can be written, DeviceLostError.
    """
    run = _BatchRun(answerer, items, journal, options)
    try:
        yield from run.events()
    except Exception as error:
        if not is_device_lost(error):
            raise
        raise DeviceLostError(
            f"The GPU failed: {' '.join(str(error).split())[:200]}.",
            "What is done is kept: rerun the command to resume, after a restart if need be.",
        ) from error
    return run.counts.tally()


class _BatchRun:
    def __init__(self, answerer: VideoQA, items: Sequence[Item], journal: RecordKeeper, options: BatchOptions) -> None:
        self._answerer = answerer
        self._journal = journal
        self._options = options
        self._reading = options.reading_within_limits
        self._still_seconds = self._reading.timeout_seconds + _GRACE_SECONDS
        self._watchdog = Watchdog(options.still_seconds, self._record_stuck)
        self._pool = ReadingPool(answerer, group_items(items), journal, options)
        self._encodings: dict[VideoAhead, Iterator[EncodedVideo | None]] = {}
        self._queue = AnswerQueue(answerer, options, self._watchdog)
        self.counts = Counts(len(items), journal, options, self._pool.budget)
        self.counts.begin()

    def events(self) -> Iterator[BatchEvent]:
        """Run until every item is done, or too many failed."""
        moved_at = time.monotonic()
        with self._watchdog, self._pool:
            while (self._queue or not self._pool.is_over) and not self.counts.has_failed_too_often:
                with self.counts.timed(Stage.READING):
                    video = self._pool.next_ready(0.0 if self._queue else _PATIENCE_SECONDS)
                has_moved = video is not None or bool(self._queue)
                if video is not None:
                    yield from self._go_on(video)
                elif self._queue:  # a small batch rather than an idle model
                    yield from self._answer()
                while self._queue.is_due and not self.counts.has_failed_too_often:
                    yield from self._answer()
                yield Working(self.counts.tally())
                if has_moved:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > self._still_seconds:
                    yield from self._give_up_reading()
                    moved_at = time.monotonic()

    def _go_on(self, video: VideoAhead) -> Iterator[BatchEvent]:
        """Encode what there is of a video; once it is whole, its questions wait to be answered."""
        opened = video.opened
        assert opened is not None
        if video not in self._encodings:
            self.counts.before += opened.before
        if not opened.questions:
            self._pool.leave(video)
            return
        with self.counts.timed(Stage.ENCODING):
            outcome = self._encode(video)
        if outcome is None:
            return
        self._encodings.pop(video, None)
        self._pool.leave(video)
        if isinstance(outcome, EncodedVideo):
            self._queue.add(SeenVideo(video.attempt, outcome, opened.prompt), opened.questions)
        else:
            yield from self._fail(video.attempt, opened.questions, outcome, video.num_frames)

    def _encode(self, video: VideoAhead) -> EncodedVideo | Failure | None:
        """Encode what was read, without waiting for more; None while the video is not whole."""
        try:
            while video.can_go_on:
                assert video.opened is not None
                if video.opened.failure is not None:
                    return video.opened.failure
                if video not in self._encodings:
                    self._encodings[video] = self._encode_in_time(video)
                if (encoded := next(self._encodings[video])) is not None:
                    file = video.opened.file
                    notes = [] if file is None else file.check()  # raises if another file took its place
                    warnings = dict.fromkeys([*encoded.warnings, *notes, *video.attempt.warnings])
                    return replace(encoded, warnings=tuple(warnings))
        except Exception as error:
            if is_device_lost(error):
                raise
            let_go(error)
            return Failure.of(error)
        return None

    def _encode_in_time(self, video: VideoAhead) -> Iterator[EncodedVideo | None]:
        """None after each chunk, then the video. Raises ItemTimeoutError, and what encoding raises."""
        opened, limit_seconds = video.opened, self._options.item_timeout_seconds
        assert opened is not None
        assert opened.source is not None
        steps = self._answerer.encode_progressively(
            opened.source, opened.sampling, reading=self._reading, crop=self._options.crop
        )
        encoded: EncodedVideo | None = None
        seconds = 0.0
        while encoded is None:
            start = time.perf_counter()
            with self._watchdog.step("the video was encoded", opened.questions):
                try:
                    next(steps)
                except StopIteration as end:
                    encoded = end.value
            seconds += time.perf_counter() - start
            if encoded is None and limit_seconds is not None and seconds > limit_seconds:
                raise ItemTimeoutError(
                    f"The video was not encoded within {plural(limit_seconds, 'second')}.",
                    "Allow more with --item-timeout, or use fewer frames (--frames).",
                )
            yield encoded

    def _give_up_reading(self) -> Iterator[BatchEvent]:
        """Fail the videos that have not moved while the model waited for long, whatever their threads do."""
        seconds = self._still_seconds
        still = self._pool.standing_still(time.monotonic() - seconds)
        if still:
            dump_stacks(f"nothing was read for {plural(seconds, 'second')}")
        for video in still:
            opened = video.opened
            if opened is None:
                opened = identify(video.attempt.items, self._options, self._journal)
                self.counts.before += opened.before
            self._encodings.pop(video, None)
            self._pool.give_up(video)
            failure = Failure.of(no_progress(seconds, "the video was read"))
            yield from self._fail(video.attempt, opened.questions, failure, None)

    def _answer(self) -> Iterator[BatchEvent]:
        outcomes = self._queue.answer(self._queue.take())
        while True:
            with self.counts.timed(Stage.ANSWERING):
                found = next(outcomes, None)
            if found is None:
                return
            waiting, outcome = found
            del found
            question, video = waiting.question, waiting.video
            if isinstance(outcome, Answer):
                yield self.counts.finish(question.item, ok_record(question, outcome, self._options.settings))
            else:
                yield from self._fail(video.attempt, [question], outcome, len(video.encoded.indices))
            if self.counts.has_failed_too_often:
                return

    def _fail(
        self, attempt: Attempt, questions: Sequence[Question], failure: Failure, num_frames: int | None
    ) -> Iterator[BatchEvent]:
        """Give each question its error record; where memory ran out, have them tried with fewer frames instead."""
        if failure.fewer_frames_may_help:
            items = [question.item for question in questions]
            smaller = attempt.smaller(items, self._options.sampling, num_frames)
            if smaller is not None:
                self._pool.again(smaller)
                return
        yield from self.counts.fail(questions, failure)

    def _record_stuck(self, questions: Sequence[Question], error: ItemTimeoutError) -> None:
        self.counts.fail(questions, Failure.of(error))
