"""Shards take each item once, and about as many each."""

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.batch.shard import Shard, in_shard, parse_shard
from sfvqa.errors import UsageError

IDS = st.binary(min_size=12, max_size=12).map(bytes.hex)


@given(IDS, st.integers(1, 50))
def test_every_item_is_in_exactly_one_shard(item_id: str, count: int) -> None:
    assert sum(in_shard(item_id, number, count) for number in range(1, count + 1)) == 1


def test_shards_are_even() -> None:
    """Of 8 jobs none takes a tenth more than its share."""
    ids = [hashlib.sha256(str(number).encode()).hexdigest()[:24] for number in range(20_000)]
    sizes = Counter(next(number for number in range(1, 9) if in_shard(name, number, 8)) for name in ids)
    assert max(sizes.values()) < 1.1 * 20_000 / 8


def test_a_shard_stays_the_same() -> None:
    assert [in_shard("0123456789abcdef01234567", number, 4) for number in (1, 2, 3, 4)] == [False, False, False, True]


@given(st.integers(1, 999), st.integers(0, 999))
def test_what_is_printed_is_read(number: int, more: int) -> None:
    shard = Shard(number, number + more)
    assert parse_shard(str(shard)) == shard
    assert parse_shard(f" {number} / {number + more} ") == shard


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "-1/4", "1", "1/", "1/4/2", "a/b", "", "1.0/4", "１/４"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        parse_shard(text)
