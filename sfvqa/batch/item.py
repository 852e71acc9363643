"""Items, each one question about one video; the ids that tell which are answered; groups and shards. Opens nothing."""

import hashlib
import heapq
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfvqa.errors import UsageError

UNREADABLE = "unreadable"
"""The content of a video that could not be hashed."""

_ID_LENGTH = 24


@dataclass(frozen=True)
class Item:
    """One question about one video.

    `video` is a path that can be opened from here; `name` is what records call it: the path relative to the folder or
    the manifest, with "/" between parts. `own_id`, `answer` (the true one) and `group` come from the manifest.
    """

    video: Path
    name: str
    question: str
    own_id: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    choices: tuple[str, ...] | None = None
    answer: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Question:
    """An item with its id."""

    item: Item
    item_id: str


def item_id(item: Item, content: str, settings: Mapping[str, object]) -> str:
    """24 hex digits that change with everything that can change the answer, and with the manifest's own id.

    `content` is the hash of the video, or UNREADABLE; `settings` are those asked for, as JSON values. Where the video
    is does not matter, nor do the true answer and the group: correcting a label asks nothing anew. Raises TypeError for
    settings that JSON cannot hold and ValueError for numbers that are not finite.
    """
    facts = {
        "name": item.name,
        "content": content,
        "question": item.question,
        "id": item.own_id,
        "start_seconds": None if item.start_seconds is None else float(item.start_seconds),
        "end_seconds": None if item.end_seconds is None else float(item.end_seconds),
        "choices": item.choices,
        "settings": settings,
    }
    # ASCII, also for names that are not UTF-8.
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:_ID_LENGTH]


_SHARD = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*", re.ASCII)


@dataclass(frozen=True)
class Shard:
    """The `number`th of `count` shares, counted from 1. UsageError if there is no such share."""

    number: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1 or not 1 <= self.number <= self.count:
            raise UsageError(
                f"There is no shard {self.number} of {self.count}.", "Count them from 1: 1/4, 2/4, 3/4, 4/4."
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read `I/N`, the Ith of N from 1 on; UsageError otherwise.

    >>> parse_shard("2/4")
    Shard(number=2, count=4)
    """
    match = _SHARD.fullmatch(text)
    if match is None:
        raise UsageError(f"“{text}” is no shard.", "Write I/N, the Ith of N jobs: 1/4 to 4/4.")
    return Shard(int(match[1]), int(match[2]))


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
    """The items of a shard; all items about one video are in the same shard, so that it is seen once.

    Shards are as equal as videos allow. They depend only on names and numbers of items: every job comes to the same
    shards, and no file is read.
    """
    num_items = Counter(item.name for item in items)
    shares = [(0, number) for number in range(1, shard.count + 1)]
    mine = set()
    for name in sorted(num_items, key=lambda name: (-num_items[name], hashlib.sha256(os.fsencode(name)).digest())):
        held, number = shares[0]
        heapq.heapreplace(shares, (held + num_items[name], number))  # the share with the fewest items
        if number == shard.number:
            mine.add(name)
    return [item for item in items if item.name in mine]
