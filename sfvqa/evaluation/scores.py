"""Turn verdicts on items into shares with intervals, and compare two runs over the same items."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

from sfvqa.evaluation.matching import Rule, is_match

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """A closed interval."""

    low: float
    high: float


def wilson_interval(successes: float, total: float) -> Interval:
    """Wilson's score interval for a share, without continuity correction; 0 to 1 where there is nothing.

    Counts may be means, of several models that answer the same questions: asking anew makes no new questions.

    Source: Wilson 1927; method 3 of Newcombe 1998, Statistics in Medicine 17, 857–872.

    >>> interval = wilson_interval(81, 263)
    >>> f"{interval.low:.4f} {interval.high:.4f}"
    '0.2553 0.3662'
    """
    if not 0 <= successes <= total:
        raise ValueError(f"a share has 0 ≤ successes ≤ total, got {successes} of {total}")
    if total == 0:
        return Interval(0.0, 1.0)
    share = successes / total
    centre = share + _Z**2 / (2 * total)
    half = _Z * math.sqrt(share * (1 - share) / total + _Z**2 / (4 * total**2))
    scale = 1 + _Z**2 / total
    # At the ends the formula is exact, and rounding would step over them.
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == total else (centre + half) / scale
    return Interval(low, high)


def paired_difference_interval(both: float, only_first: float, only_second: float, none: float) -> Interval:
    """The interval for (share right in the first) - (share right in the second), both over the same items.

    Counts may be means, as in `wilson_interval`.

    Source: method 10 of Newcombe 1998, Statistics in Medicine 17, 2635–2650: Wilson's intervals of both shares, put
    together with their correlation. ±1 where there is nothing.

    >>> interval = paired_difference_interval(1, 1, 7, 12)
    >>> f"{interval.low:.3f} {interval.high:.3f}"
    '-0.507 -0.026'
    """
    total = both + only_first + only_second + none
    if min(both, only_first, only_second, none) < 0:
        raise ValueError(f"counts are not negative, got {both}, {only_first}, {only_second}, {none}")
    if total == 0:
        return Interval(-1.0, 1.0)
    first, second = (both + only_first) / total, (both + only_second) / total
    around_first, around_second = (wilson_interval(both + only, total) for only in (only_first, only_second))
    correlation = _correlation(both, only_first, only_second, none)
    below = _combined(first - around_first.low, around_second.high - second, correlation)
    above = _combined(around_first.high - first, second - around_second.low, correlation)
    difference = first - second
    return Interval(max(difference - below, -1.0), min(difference + above, 1.0))


def _combined(one: float, other: float, correlation: float) -> float:
    """The length of one half of the interval, from the halves of the two shares."""
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))


def _correlation(both: float, only_first: float, only_second: float, none: float) -> float:
    """φ of the table, with Newcombe's correction where it is positive; 0 where a margin is empty."""
    margins = (both + only_first) * (only_second + none) * (both + only_second) * (only_first + none)
    if margins == 0:
        return 0.0
    excess: float = both * none - only_first * only_second
    if excess > 0:
        excess = max(excess - (both + only_first + only_second + none) / 2, 0.0)
    return excess / math.sqrt(margins)


_EXACT_TO = 1000
"""Discordant items up to which whole numbers are summed; above, terms in floating point, right to nine digits."""


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """The two-sided exact p-value: of the items that one run alone got right, chance gives each run half.

    Twice the binomial tail of the smaller count, at most 1.

    >>> mcnemar_p_value(1, 7), mcnemar_p_value(4, 4)
    (0.0703125, 1.0)
    """
    if min(only_first, only_second) < 0:
        raise ValueError(f"counts are not negative, got {only_first} and {only_second}")
    total, smaller = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1.0
    if total <= _EXACT_TO:
        return 2 * sum(math.comb(total, count) for count in range(smaller + 1)) / (1 << total)
    return _large_p_value(total, smaller)


def _large_p_value(total: int, smaller: int) -> float:
    """From the largest term down, each from the one before, until they no longer count: no overflow, few steps."""
    log_largest = (
        math.lgamma(total + 1) - math.lgamma(smaller + 1) - math.lgamma(total - smaller + 1) - total * math.log(2)
    )
    term = relative = 1.0
    for count in range(smaller, 0, -1):
        term *= count / (total - count + 1)
        relative += term
        if term < relative * 1e-17:
            break
    return min(1.0, 2 * relative * math.exp(log_largest))


_EVERY_SUM_TO = 20_000
"""Sum of the sizes up to which every sum of signed differences is counted."""


def swap_p_value(differences: Iterable[int]) -> float:
    """The two-sided p-value of the sum of differences between two runs, as far from 0 or farther.

    The null hypothesis: each difference is as likely to have the one sign as the other, whatever signs the others have.
    With a difference for each video, of the answers about it that one run alone got right, whole videos are swapped:
    answers about one need not be independent of each other, but the videos have to be. Nothing is sampled: all signs
    are counted while the sizes sum to 20,000 at most; above, the normal curve stands for them, which is wrong where a
    few videos have most of the sum. Where all are 1 or -1, it is McNemar's test.

    Source: Fisher 1935, The Design of Experiments, section 21.

    >>> swap_p_value([1, 1, 1, 1, 1, 1, 1, -1]), swap_p_value([4, 4])
    (0.0703125, 0.5)
    """
    signed = [difference for difference in differences if difference]
    observed, largest = abs(sum(signed)), sum(map(abs, signed))
    if largest > _EVERY_SUM_TO:
        return math.erfc(observed / math.sqrt(2 * sum(difference**2 for difference in signed)))
    import numpy

    chances = numpy.zeros(largest + 1)  # by the sum of those with a positive sign
    chances[0] = 1
    for size in map(abs, signed):
        chances[size:] += chances[:-size].copy()
        chances /= 2
    sums = numpy.abs(2 * numpy.arange(largest + 1) - largest)
    return min(1.0, float(chances[sums >= observed].sum()))


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


class Verdict(StrEnum):
    """The outcome of an item whose true answer is known."""

    RIGHT = "right"
    WRONG = "wrong"
    FAILED = "failed"
    """There is no answer, only an error."""


def judge(
    answer: str | None, expected: str, choices: tuple[str, ...] = (), *, question: str = "", rule: Rule = Rule.PHRASE
) -> Verdict:
    """The verdict on an answer, None where there is none, by a rule of `evaluation.matching`."""
    if answer is None:
        return Verdict.FAILED
    return Verdict.RIGHT if is_match(answer, expected, choices, question=question, rule=rule) else Verdict.WRONG


def agree(one: str, other: str, choices: tuple[str, ...] = (), *, question: str = "", rule: Rule = Rule.PHRASE) -> bool:
    """Whether two answers say the same by a rule: each is right with the other as the expected one.

    >>> agree("7", "The digit 7 is shown.", question="Which digit is shown?"), agree("A 7.", "A 7 and a star.")
    (True, False)
    """
    return all(
        is_match(answer, expected, choices, question=question, rule=rule)
        for answer, expected in ((one, other), (other, one))
    )


@dataclass(frozen=True)
class Share:
    """`right` of `total`, with the 95 % interval of that share by Wilson; `value` is None of nothing."""

    right: int
    total: int

    @property
    def value(self) -> float | None:
        """Between 0 and 1."""
        return self.right / self.total if self.total else None

    @property
    def interval(self) -> Interval:
        """Of 95 %."""
        return wilson_interval(self.right, self.total)


@dataclass(frozen=True)
class Score:
    """How many items are right, wrong, and without an answer."""

    right: int = 0
    wrong: int = 0
    failed: int = 0

    @property
    def of_all(self) -> Share:
        """Accuracy where an item without an answer is wrong."""
        return Share(self.right, self.right + self.wrong + self.failed)

    @property
    def of_answered(self) -> Share:
        """Accuracy over the answered items alone."""
        return Share(self.right, self.right + self.wrong)

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> "Score":
        """The score of some verdicts."""
        counts = Counter(verdicts)
        return cls(counts[Verdict.RIGHT], counts[Verdict.WRONG], counts[Verdict.FAILED])


def score_groups(verdicts: Iterable[tuple[str | None, Verdict]]) -> dict[str, Score]:
    """The score of each group, by its name in order; items without a group are in none."""
    groups: dict[str, list[Verdict]] = {}
    for group, verdict in verdicts:
        if group is not None:
            groups.setdefault(group, []).append(verdict)
    return {name: Score.of(groups[name]) for name in sorted(groups)}
