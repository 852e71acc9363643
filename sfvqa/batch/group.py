"""Items about the same seconds of the same video, which is seen once for all of them. Opens nothing."""

import hashlib
import os
from collections.abc import Iterable
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


def take_shard(items: Iterable[Item], shard: Shard) -> list[Item]:
    """The items of a shard, where all that are about one video are in one, so that it is seen once.

    By the video's name: no file need be read, and a video that is added moves no other.
    """
    return [item for item in items if shard.holds(hashlib.sha256(os.fsencode(item.name)).hexdigest())]
