"""How far a batch is: items by what became of them, and where the time of the model's thread went."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sfvqa.batch.item import Item, Question
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import ERROR, OK, Failure, Record, error_record
from sfvqa.errors import ExitCode
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.batch.video_ahead import FrameBudget

_LONGEST_STILL_SECONDS = 10.0  # that mean nothing: items finish in batches


class Stage(StrEnum):
    """What the thread that has the model does; the stage that takes longest is the bottleneck."""

    READING = "reading"
    """Waiting for frames: the model is idle."""
    ENCODING = "encoding"
    """Frames are going through the vision tower."""
    ANSWERING = "answering"
    """Answers are being written."""


@dataclass(frozen=True)
class Tally:
    """How far a run is, or how it ended; `stopped` says in a sentence why it ended early.

    Of `num_items`, `num_answered` were answered in this run, `errors` counts those that failed by type, and `before`
    those that had their record already, by its status. `stage_seconds` are by the wall clock, of `elapsed_seconds` in
    all; `num_frames_held` are read and not yet encoded, `most_frames_held` were so at most. `still_seconds` is how long
    ago the last item finished, or the run began. On a cluster `num_workers` of `num_workers_wanted` are ready, and
    times and frames are sums over all of them.
    """

    num_items: int
    num_answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    before: Counter[str] = field(default_factory=Counter)
    elapsed_seconds: float = 0.0
    stage_seconds: Mapping[Stage, float] = field(default_factory=dict)
    num_frames_held: int = 0
    most_frames_held: int = 0
    still_seconds: float = 0.0
    num_workers: int = 0
    num_workers_wanted: int = 0
    stopped: str | None = None

    @property
    def num_failed(self) -> int:
        """Items that failed in this run."""
        return self.errors.total()

    @property
    def num_left(self) -> int:
        """Items that have no record yet."""
        return self.num_items - self.num_answered - self.num_failed - self.before.total()

    @property
    def items_a_minute(self) -> float | None:
        """Answered or failed in this run; None before the first."""
        num_finished = self.num_answered + self.num_failed
        return 60 * num_finished / self.elapsed_seconds if num_finished and self.elapsed_seconds else None

    @property
    def seconds_to_go(self) -> float | None:
        """At that rate; None where nothing has finished for longer than all that is left would take."""
        if not self.items_a_minute:
            return None
        seconds = 60 * self.num_left / self.items_a_minute
        return None if self.still_seconds > max(seconds, _LONGEST_STILL_SECONDS) else seconds

    @property
    def waiting_share(self) -> float | None:
        """The share of the time in which the model waited for frames."""
        total = sum(self.stage_seconds.values())
        return self.stage_seconds.get(Stage.READING, 0.0) / total if total else None

    @property
    def bottleneck(self) -> Stage | None:
        """The stage that took longest so far."""
        return max(self.stage_seconds, key=lambda stage: self.stage_seconds[stage], default=None)

    @property
    def exit_code(self) -> ExitCode:
        """What the command line returns: items that failed count, in whichever run they did."""
        return ExitCode.BATCH_FAILURES if self.num_failed or self.before[ERROR] else ExitCode.OK

    def to_dict(self) -> dict[str, object]:
        """The object that `sfvqa batch --json` prints."""
        return {
            "schema_version": 1,
            "status": "ok" if self.exit_code is ExitCode.OK else "failures",
            "items": self.num_items,
            "answered": self.num_answered,
            "failed": self.num_failed,
            "answered_before": self.before[OK],
            "failed_before": self.before[ERROR],
            "left": self.num_left,
            "errors": dict(self.errors.most_common()),
            "elapsed_seconds": self.elapsed_seconds,
            "stage_seconds": {stage.value: seconds for stage, seconds in self.stage_seconds.items()},
            "waiting_share": self.waiting_share,
            "bottleneck": self.bottleneck,
            "items_a_minute": self.items_a_minute,
            "most_frames_held": self.most_frames_held,
            "stopped": self.stopped,
        }


@dataclass(frozen=True, eq=False)
class ItemFinished:
    """An item has its `record`, an answer or an error, in the journal; `tally` counts it."""

    item: Item
    record: Mapping[str, Any]
    tally: Tally


@dataclass(frozen=True)
class Working:
    """Time passed, or items were skipped, or there is something to tell: `notice`, a sentence."""

    tally: Tally
    notice: str = ""


BatchEvent = ItemFinished | Working


class Counts:
    """Keeps the records of a run and counts its items, those done `before` it too, and the seconds of each stage."""

    def __init__(
        self, num_items: int, keeper: RecordKeeper, options: BatchOptions, budget: "FrameBudget | None" = None
    ) -> None:
        self.before: Counter[str] = Counter()
        self.stage_seconds = dict.fromkeys(Stage, 0.0)
        self._num_items = num_items
        self._keeper = keeper
        self._options = options
        self._budget = budget
        self._num_answered = 0
        self._errors: Counter[str] = Counter()
        self._began: float | None = None
        self._finished_at = 0.0

    def begin(self) -> None:
        """Start the clock, unless it runs."""
        if self._began is None:
            self._began = self._finished_at = time.perf_counter()

    @contextlib.contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds[stage] += time.perf_counter() - start

    def finish(self, item: Item, record: Record) -> ItemFinished:
        """Keep the record of an item. JournalError if it cannot be written."""
        self._keeper.append(record)
        self._finished_at = time.perf_counter()
        if record["status"] == OK:
            self._num_answered += 1
        else:
            self._errors[record["error"]["type"]] += 1
        return ItemFinished(item, record, self.tally())

    def fail(self, questions: Sequence[Question], failure: Failure) -> list[ItemFinished]:
        """Give each question its error record."""
        settings = self._options.settings
        return [self.finish(question.item, error_record(question, failure, settings)) for question in questions]

    @property
    def has_failed_too_often(self) -> bool:
        """Whether the run is to stop, after `max_failures`."""
        most = self._options.max_failures
        return most is not None and self._errors.total() >= most

    def tally(self) -> Tally:
        """How far the run is, or how it ended."""
        now = time.perf_counter()
        tally = Tally(
            num_items=self._num_items,
            num_answered=self._num_answered,
            errors=self._errors.copy(),
            before=self.before.copy(),
            elapsed_seconds=0.0 if self._began is None else now - self._began,
            stage_seconds=self.stage_seconds.copy(),
            num_frames_held=self._budget.num_held if self._budget else 0,
            most_frames_held=self._budget.most_held if self._budget else 0,
            still_seconds=0.0 if self._began is None else now - self._finished_at,
        )
        if self.has_failed_too_often and tally.num_left:
            return replace(tally, stopped=f"Stopped after {plural(tally.num_failed, 'failure')}.")
        return tally
