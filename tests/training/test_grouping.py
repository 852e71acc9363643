"""Rows of like length come together, each once an epoch, in an order that seed and epoch alone decide."""

import numpy as np
import pytest

from sfvqa.training.grouping import GroupedByLength


def padding(lengths: np.ndarray, order: list[int], together: int) -> float:
    """The share of a batch's places that hold no token."""
    batches = [lengths[order[first : first + together]] for first in range(0, len(order), together)]
    places = sum(batch.max() * len(batch) for batch in batches)
    return float(1 - lengths.sum() / places)


@pytest.mark.parametrize("together", [4, 8, 3000])
@pytest.mark.parametrize("count", [1, 3, 8, 1001])
def test_each_row_comes_once_and_a_part_of_a_batch_last(count: int, together: int) -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, count)
    order = list(GroupedByLength(lengths.tolist(), together, seed=0))
    assert sorted(order) == list(range(count))
    if count >= together:
        assert lengths[order[0]] == lengths[order[: count - count % together]].max()


def test_little_is_padding() -> None:
    """As the README says."""
    lengths = np.random.default_rng(0).integers(10, 1000, 1000)
    order = list(GroupedByLength(lengths.tolist(), 8, seed=0))
    alone = padding(lengths, list(np.random.default_rng(1).permutation(1000)), 8)
    assert round(alone, 2) == 0.41
    assert round(padding(lengths, order, 8), 2) == 0.02


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = np.random.default_rng(0).integers(10, 1000, 300)
    first, same, other = (GroupedByLength(lengths.tolist(), 8, seed) for seed in (0, 0, 1))
    orders = [list(first), list(same), list(other)]
    assert orders[0] == orders[1] == list(first)
    assert orders[0] != orders[2]
    first.epoch = 1
    assert list(first) != orders[0]
    first.epoch = 0
    assert list(first) == orders[0]


def test_batches_of_all_lengths_come_in_any_order() -> None:
    """Sorted throughout, an epoch would be learned from long rows to short ones."""
    lengths = np.arange(400)
    means = [
        lengths[order].mean() for order in np.array(list(GroupedByLength(lengths.tolist(), 8, seed=0))).reshape(-1, 8)
    ]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5
