"""Shards take each item once, and about as many each."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.item import Item, parse_shard, take_shard
from sfvqa.errors import UsageError


def items_of(num_items: dict[str, int]) -> list[Item]:
    return [
        Item(Path(name), name, f"Question {number}?") for name, count in num_items.items() for number in range(count)
    ]


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 9), max_size=30), st.integers(1, 8))
def test_every_item_is_in_one_shard_and_a_video_is_in_no_two(num_items: dict[str, int], count: int) -> None:
    items = items_of(num_items)
    shards = [take_shard(items, number, count) for number in range(1, count + 1)]
    assert sorted(map(repr, items)) == sorted(repr(item) for shard in shards for item in shard)
    assert sum(len({item.name for item in shard}) for shard in shards) == len(num_items)
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= max(num_items.values(), default=0)


@pytest.mark.parametrize("num_questions", [1, 3])
def test_shards_are_even(num_questions: int) -> None:
    """Of 14 videos one job of two had 10, and the other 4."""
    items = items_of({f"clips/{number}.mp4": num_questions for number in range(14)})
    assert [len(take_shard(items, number, 2)) for number in (1, 2)] == [7 * num_questions] * 2
    assert sorted(len(take_shard(items, number, 4)) for number in range(1, 5)) == [
        each * num_questions for each in (3, 3, 4, 4)
    ]


def test_a_shard_is_the_same_in_whatever_order_the_videos_are_listed() -> None:
    items = items_of({f"{number}.mp4": 1 + number % 3 for number in range(20)})
    assert take_shard(items[::-1], 2, 3) == take_shard(items, 2, 3)[::-1]


@given(st.integers(1, 999), st.integers(0, 999))
def test_white_space_does_not_matter(number: int, more: int) -> None:
    count = number + more
    assert parse_shard(f"{number}/{count}") == parse_shard(f" {number} / {count} ") == (number, count)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "-1/4", "1", "1/", "1/4/2", "a/b", "", "1.0/4", "１/４"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text)
