"""Items about the same seconds of the same video, which is seen once for all of them. Opens nothing."""

import hashlib
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.batch.shard import Shard


@dataclass(frozen=True)
class VideoGroup:
    """The items, at least one, about a video between two times (None: its beginning, its end)."""

    video: Path
    name: str
    start_seconds: float | None
    end_seconds: float | None
    items: tuple[Item, ...]


def group_items(items: Iterable[Item]) -> list[VideoGroup]:
    """The groups in the order in which their first items come."""
    found: dict[tuple[Path, str, float | None, float | None], list[Item]] = {}
    for item in items:
        found.setdefault((item.video, item.name, item.start_seconds, item.end_seconds), []).append(item)
    return [VideoGroup(*of_which, tuple(items)) for of_which, items in found.items()]


def take_shard(items: Sequence[Item], shard: Shard) -> list[Item]:
    """The items of a shard, where all that are about one video are in one, so that it is seen once.

    Shards get as many items each as videos allow. By names and numbers of items alone: every job comes to the same
    shares of the same items, and no file need be read.
    """
    num_items = Counter(item.name for item in items)
    shares = [(0, number) for number in range(1, shard.count + 1)]
    mine = set()
    for name in sorted(num_items, key=lambda name: (-num_items[name], hashlib.sha256(os.fsencode(name)).digest())):
        held, number = shares[0]
        heapq.heapreplace(shares, (held + num_items[name], number))  # the one that has the fewest
        if number == shard.number:
            mine.add(name)
    return [item for item in items if item.name in mine]
