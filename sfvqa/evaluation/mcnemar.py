"""McNemar's test: do two runs differ on the same items by more than chance. Exact, without scipy."""

import math

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
