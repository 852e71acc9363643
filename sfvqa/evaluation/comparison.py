"""Two runs over the same items, item by item. What is paired with what is decided elsewhere."""

from dataclasses import dataclass

from sfvqa.evaluation.intervals import Interval, paired_difference_interval
from sfvqa.evaluation.mcnemar import mcnemar_p_value


@dataclass(frozen=True)
class PairedCounts:
    """How many items both runs got right, only the new one, only the old one, neither; no answer is not right."""

    both: int = 0
    only_new: int = 0
    only_old: int = 0
    neither: int = 0

    @property
    def total(self) -> int:
        """The items that both runs have."""
        return self.both + self.only_new + self.only_old + self.neither

    @property
    def new_right(self) -> int:
        """Items that the new run got right."""
        return self.both + self.only_new

    @property
    def old_right(self) -> int:
        """Items that the old run got right."""
        return self.both + self.only_old

    @property
    def difference(self) -> float | None:
        """The new run's accuracy less the old one's; None of nothing."""
        return (self.only_new - self.only_old) / self.total if self.total else None

    @property
    def interval(self) -> Interval:
        """Of 95 % for the difference, by Newcombe."""
        return paired_difference_interval(self.both, self.only_new, self.only_old, self.neither)

    @property
    def p_value(self) -> float:
        """Of McNemar's exact test, two-sided."""
        return mcnemar_p_value(self.only_new, self.only_old)
