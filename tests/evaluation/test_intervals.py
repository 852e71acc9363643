"""Intervals against published figures, and what must hold for any counts."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sfvqa.evaluation.scores import paired_difference_interval, wilson_interval

COUNT = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_as_published(successes: int, total: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17, 857–872, table I, method 3."""
    interval = wilson_interval(successes, total)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-5)


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        (16, 20, 0.5839825677481064, 0.919342337420202),
        (91, 100, 0.8377378714728368, 0.9519274599974349),
        (3, 5, 0.2307242812760129, 0.8823792257673522),
    ],
)
def test_wilson_as_statsmodels_has_it(successes: int, total: int, low: float, high: float) -> None:
    """statsmodels 0.15, proportion_confint(method="wilson")."""
    interval = wilson_interval(successes, total)
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        ((36, 12, 2, 0), 0.0569, 0.3404),  # Newcombe 1998, Statistics in Medicine 17, 2635–2650, table II, method 10
        ((14, 5, 0, 22), 0.011, 0.226),  # Altman and others 2000, Statistics with confidence, p. 52
        ((1, 1, 7, 12), -0.507, -0.026),  # Fagerland and others 2013, BMC Medical Research Methodology 13, 91
    ],
)
def test_paired_difference_as_published(table: tuple[int, int, int, int], low: float, high: float) -> None:
    interval = paired_difference_interval(*table)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=6e-4)


@given(COUNT, COUNT)
def test_wilson_holds_the_share_and_stays_within_0_and_1(right: int, wrong: int) -> None:
    interval = wilson_interval(right, right + wrong)
    assert 0 <= interval.low < interval.high <= 1
    if right + wrong:
        assert interval.low <= right / (right + wrong) <= interval.high


@given(COUNT, COUNT)
def test_wilson_is_symmetric(right: int, wrong: int) -> None:
    interval, mirrored = wilson_interval(right, right + wrong), wilson_interval(wrong, right + wrong)
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-12)


@given(COUNT, COUNT, COUNT, COUNT)
def test_paired_difference_holds_the_difference_and_swaps_with_the_runs(a: int, b: int, c: int, d: int) -> None:
    assume(a + b + c + d)
    interval, swapped = paired_difference_interval(a, b, c, d), paired_difference_interval(a, c, b, d)
    difference = (b - c) / (a + b + c + d)
    assert -1 <= interval.low <= difference + 1e-12
    assert difference - 1e-12 <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((-swapped.high, -swapped.low), abs=1e-12)


def test_nothing_is_known_of_nothing() -> None:
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0, 1)
    assert (paired_difference_interval(0, 0, 0, 0).low, paired_difference_interval(0, 0, 0, 0).high) == (-1, 1)


@pytest.mark.parametrize("counts", [(2, 1), (-1, 1)])
def test_impossible_shares_are_errors(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(*counts)
