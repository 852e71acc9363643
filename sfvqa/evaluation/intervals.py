"""Intervals of 95 % for a share, and for the difference of two shares of the same items. Formulas, no data."""

import math
from dataclasses import dataclass
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Interval:
    """From `low` to `high`, both in it."""

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
    around_first, around_second = (
        wilson_interval(both + only_first, total),
        wilson_interval(both + only_second, total),
    )
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
