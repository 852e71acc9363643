"""How far a batch is: items by what became of them, and where the time of the model's thread went. Data only."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sfvqa.batch.item import Item
from sfvqa.errors import ExitCode

_LONGEST_STILL_SECONDS = 10.0  # that say nothing: items finish in batches


class Stage(StrEnum):
    """What the thread that has the model does; the one that takes longest is the bottleneck."""

    READING = "reading"
    """Waiting for frames: the model is idle."""
    ENCODING = "encoding"
    """Frames are going through the vision tower."""
    ANSWERING = "answering"
    """Answers are being written."""


@dataclass(frozen=True)
class Tally:
    """Of `num_items` so many were answered in this run or before it, or failed in it or before it.

    `stage_seconds` by the wall clock, `elapsed_seconds` in all; `num_frames_held` are read and not seen yet.
    `still_seconds` is how long ago the last item was finished, or it began.
    On a cluster `num_workers` of `num_workers_wanted` are ready, and times and frames are the sums over all of them.
    """

    num_items: int
    num_answered: int = 0
    num_failed: int = 0
    num_answered_before: int = 0
    num_failed_before: int = 0
    elapsed_seconds: float = 0.0
    stage_seconds: Mapping[Stage, float] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    num_frames_held: int = 0
    still_seconds: float = 0.0
    num_workers: int = 0
    num_workers_wanted: int = 0

    @property
    def num_left(self) -> int:
        """Items of which nothing became yet."""
        return self.num_items - self.num_answered - self.num_failed - self.num_before

    @property
    def num_before(self) -> int:
        """Items that were not asked, because they have their record."""
        return self.num_answered_before + self.num_failed_before

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


@dataclass(frozen=True, eq=False)
class ItemFinished:
    """An item has its `record`, an answer or an error, in the journal; `tally` counts it."""

    item: Item
    record: Mapping[str, Any]
    tally: Tally


@dataclass(frozen=True)
class Working:
    """Time passed, or items were skipped, or there is something to be told: `notice`, a sentence."""

    tally: Tally
    notice: str = ""


BatchEvent = ItemFinished | Working


@dataclass(frozen=True)
class BatchSummary:
    """How a batch ended; `stopped` says why it ended early, in a sentence."""

    tally: Tally
    most_frames_held: int
    stopped: str | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What the command line returns: failures of items count, whichever run they are of."""
        has_failures = self.tally.num_failed or self.tally.num_failed_before
        return ExitCode.BATCH_FAILURES if has_failures else ExitCode.OK

    def to_dict(self) -> dict[str, object]:
        """The object `sfvqa batch --json` prints."""
        tally = self.tally
        return {
            "schema_version": 1,
            "status": "ok" if self.exit_code is ExitCode.OK else "failures",
            "items": tally.num_items,
            "answered": tally.num_answered,
            "failed": tally.num_failed,
            "answered_before": tally.num_answered_before,
            "failed_before": tally.num_failed_before,
            "left": tally.num_left,
            "errors": dict(Counter(tally.errors).most_common()),
            "elapsed_seconds": tally.elapsed_seconds,
            "stage_seconds": {stage.value: seconds for stage, seconds in tally.stage_seconds.items()},
            "waiting_share": tally.waiting_share,
            "bottleneck": tally.bottleneck,
            "items_a_minute": tally.items_a_minute,
            "most_frames_held": self.most_frames_held,
            "stopped": self.stopped,
        }
