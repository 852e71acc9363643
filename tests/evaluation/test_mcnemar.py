"""McNemar's exact test, and the one by whole videos, against published and counted figures."""

from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.evaluation.scores import _EVERY_SUM_TO, _EXACT_TO, _large_p_value, mcnemar_p_value, swap_p_value


@pytest.mark.parametrize(
    ("only_first", "only_second", "p_value"),
    [
        (1, 7, 0.0703125),  # Fagerland and others 2013
        (150, 86, 3.716e-05),  # Agresti's approval ratings, as R's binom.test(86, 236)
        (5, 0, 0.0625),
        (0, 0, 1.0),
        (3, 4, 1.0),
        # As statsmodels 0.15 has them, mcnemar(exact=True), and scipy 1.17, binomtest:
        (9, 3, 0.14599609375),
        (25, 10, 0.016673847800120715),
        (700, 600, 0.0060157938610449395),
    ],
)
def test_known_figures(only_first: int, only_second: int, p_value: float) -> None:
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(p_value, rel=1e-4)


@pytest.mark.parametrize("total", range(1, 11))
def test_it_is_the_share_of_coin_throws_at_least_as_uneven(total: int) -> None:
    """By counting all of them."""
    for heads in range(total + 1):
        uneven = sum(abs(2 * sum(throws) - total) >= abs(2 * heads - total) for throws in product((0, 1), repeat=total))
        assert Fraction(mcnemar_p_value(heads, total - heads)) == Fraction(uneven, 2**total)


@given(st.integers(0, _EXACT_TO), st.integers(0, _EXACT_TO))
def test_large_counts_go_on_where_small_ones_end(one: int, other: int) -> None:
    """The floating-point form against whole numbers, where both can be had."""
    total, smaller = one + other, min(one, other)
    if one != other and total <= _EXACT_TO:
        assert _large_p_value(total, smaller) == pytest.approx(mcnemar_p_value(one, other), rel=1e-9, abs=1e-300)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_it_is_a_probability_and_both_runs_are_alike(one: int, other: int) -> None:
    assert 0 <= mcnemar_p_value(one, other) <= 1
    assert mcnemar_p_value(one, other) == mcnemar_p_value(other, one)


def test_a_million_items_near_half() -> None:
    """One standard deviation from half each way: about 0.3173, as the normal curve has it."""
    assert mcnemar_p_value(500_500, 499_500) == pytest.approx(0.3173, abs=5e-4)


def test_counts_are_not_negative() -> None:
    with pytest.raises(ValueError, match="not negative"):
        mcnemar_p_value(-1, 2)


def test_swapping_as_fisher_counted_it() -> None:
    """Darwin's pairs of maize, in eighths of an inch: 1,726 of the 32,768 sums are as far from 0 as 314."""
    maize = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
    assert sum(maize) == 314
    assert swap_p_value(maize) == pytest.approx(1726 / 32768, rel=1e-12)


@given(st.lists(st.integers(-5, 5), max_size=9))
def test_swapping_is_the_share_of_signs_at_least_as_uneven(differences: list[int]) -> None:
    """By counting all of them."""
    sums = [
        abs(sum(sign * each for sign, each in zip(signs, differences, strict=True)))
        for signs in product((-1, 1), repeat=len(differences))
    ]
    uneven = sum(each >= abs(sum(differences)) for each in sums)
    assert swap_p_value(differences) == pytest.approx(uneven / len(sums), rel=1e-12)


@given(st.integers(0, 200), st.integers(0, 200))
def test_swapping_single_items_is_mcnemars_test(one: int, other: int) -> None:
    assert swap_p_value([1] * one + [-1] * other + [0] * 5) == pytest.approx(mcnemar_p_value(one, other), rel=1e-9)


def test_swapping_goes_on_where_sums_are_no_longer_counted() -> None:
    counted = swap_p_value([2] * (_EVERY_SUM_TO // 4 + 50) + [-2] * (_EVERY_SUM_TO // 4 - 50))
    by_the_curve = swap_p_value([2] * (_EVERY_SUM_TO // 4 + 51) + [-2] * (_EVERY_SUM_TO // 4 - 49))
    assert counted == pytest.approx(by_the_curve, rel=0.02)
