"""From when to when a run ran, without its pauses, by the times at which its items were finished."""

from collections.abc import Iterable
from dataclasses import dataclass

from sfvqa.batch.report.facts import ItemFacts

PAUSE_SECONDS = 600.0
"""Time that no item accounts for, longer than which nothing ran: loading a model takes less."""


@dataclass(frozen=True)
class TimeSpan:
    """From the start of the first items, which may be a batch, to the end of the last, in seconds since 1970.

    `active_seconds` are those without the `num_pauses` pauses: longer than PAUSE_SECONDS beyond what the next item
    took, as when a run is interrupted and taken up again. Loading the model before the first item is not in it.
    """

    began: float
    ended: float
    active_seconds: float
    num_pauses: int

    def per_minute(self, count: int) -> float | None:
        """How many a minute, while it ran."""
        return count * 60 / self.active_seconds if self.active_seconds > 0 else None

    def per_second(self, count: int) -> float | None:
        """How many a second, while it ran."""
        return count / self.active_seconds if self.active_seconds > 0 else None


def measure_span(items: Iterable[ItemFacts]) -> TimeSpan | None:
    """The span of a run; None where no record says when it was finished."""
    ended = sorted(
        ((item.finished, item.seconds) for item in items if item.finished is not None), key=lambda end: end[0]
    )
    if not ended:
        return None
    num_first = ended[0][1].num_together if ended[0][1] else 1
    began = before = ended[0][0] - sum(seconds.own_total for _, seconds in ended[:num_first] if seconds)
    active, num_pauses = 0.0, 0
    for end, seconds in ended:
        taken = seconds.total if seconds else 0.0
        gap = end - before
        if gap > taken + PAUSE_SECONDS:
            gap, num_pauses = taken, num_pauses + 1
        active, before = active + gap, end
    return TimeSpan(began, before, active, num_pauses)
