"""How far a batch on many workers is: what each says of its share, and what became of the items, in one Tally."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from sfvqa.batch.cluster.shares import Share
from sfvqa.batch.record import ERROR, OK
from sfvqa.batch.tally import BatchEvent, BatchSummary, Stage, Tally


class Counts:
    """Items are counted as their records come; `before` and the times are what the workers say, shares added up.

    The clock runs from the first worker that is ready, as without a cluster it runs from the loaded model.
    """

    def __init__(self, num_items: int) -> None:
        self.num_workers = 0
        self.num_workers_wanted = 0
        self.most_frames_held = 0
        self.errors: Counter[str] = Counter()
        self.before: Counter[str] = Counter()
        self._num_items, self._num_answered = num_items, 0
        self._began: float | None = None
        self._finished_at = 0.0
        self._seconds = dict.fromkeys(Stage, 0.0)
        self._of_shares: dict[Share, Tally] = {}

    def begin(self) -> None:
        """Start the clock, unless it runs."""
        if self._began is None:
            self._began = self._finished_at = time.perf_counter()

    def count(self, record: Mapping[str, Any]) -> None:
        """An item has its record."""
        self._finished_at = time.perf_counter()
        if record["status"] == OK:
            self._num_answered += 1
        else:
            self.errors[record["error"]["type"]] += 1

    def hear(self, share: Share, what: BatchEvent | BatchSummary) -> None:
        """What a worker says of its share; with the summary the share is done."""
        self._of_shares[share] = what.tally
        if isinstance(what, BatchSummary):
            self.most_frames_held = max(self.most_frames_held, what.most_frames_held)
            self.before += Counter({OK: what.tally.num_answered_before, ERROR: what.tally.num_failed_before})
            self.forget(share)

    def forget(self, share: Share) -> None:
        """A share has ended or is lost: the time it took counts, and what it skipped is skipped again by others."""
        tally = self._of_shares.pop(share, None)
        for stage, seconds in (tally.stage_seconds if tally else {}).items():
            self._seconds[stage] += seconds

    def tally(self) -> Tally:
        """All of it."""
        live = self._of_shares.values()
        return Tally(
            num_items=self._num_items,
            num_answered=self._num_answered,
            num_failed=self.errors.total(),
            num_answered_before=self.before[OK] + sum(tally.num_answered_before for tally in live),
            num_failed_before=self.before[ERROR] + sum(tally.num_failed_before for tally in live),
            elapsed_seconds=0.0 if self._began is None else time.perf_counter() - self._began,
            stage_seconds={
                stage: seconds + sum(tally.stage_seconds.get(stage, 0.0) for tally in live)
                for stage, seconds in self._seconds.items()
            },
            errors=dict(self.errors),
            num_frames_held=sum(tally.num_frames_held for tally in live),
            still_seconds=0.0 if self._began is None else time.perf_counter() - self._finished_at,
            num_workers=self.num_workers,
            num_workers_wanted=self.num_workers_wanted,
        )
