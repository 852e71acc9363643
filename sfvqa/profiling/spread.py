"""A measured figure: its median over the repeats, and the least and the most that was seen."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """`noise` is how far apart least and most are, as a share of the median; None where that says nothing.

    >>> spread = Spread.of([1.0, 1.3, 1.1])
    >>> spread.median, spread.least, spread.most, round(spread.noise, 2)
    (1.1, 1.0, 1.3, 0.27)
    """

    median: float
    least: float
    most: float
    num_repeats: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    @property
    def noise(self) -> float | None:
        """None for a single repeat, and for a median of 0."""
        return None if self.num_repeats < 2 or not self.median else (self.most - self.least) / self.median

    def overlaps(self, other: "Spread") -> bool:
        """Whether some value may have been seen in both."""
        return self.least <= other.most and other.least <= self.most
