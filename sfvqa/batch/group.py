"""Items about the same seconds of the same video, which is seen once for all of them. Opens nothing."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfvqa.batch.item import Item


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


def take_shard(items: Sequence[Item], number: int, count: int) -> list[Item]:
    """The items of shard `number` of 1 … `count`: those of one video stay together, whatever others there are.

    By a hash of the video's name, so that no file need be read, and a video that is added moves no other.
    """

    def shard_of(item: Item) -> int:
        digest = hashlib.sha256(item.name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % count + 1

    return [item for item in items if shard_of(item) == number]
