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
from sfvqa.video.windows import Window

UNREADABLE = "unreadable"
"""The content of a video that could not be hashed."""

_ID_LENGTH = 24


@dataclass(frozen=True)
class Item:
    """One question about one video.

    `video` is a path that can be opened from here; `name` is what records call it: the path relative to the folder or
    the manifest, with "/" between parts. `own_id`, `answer` and `fields` (the true ones), and `group` come from the
    manifest. `is_window`: the range is one of those that the video is asked about in, one by one.
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
    fields: tuple[tuple[str, str], ...] = ()
    is_window: bool = False

    @property
    def window(self) -> Window | None:
        """The part of the video that it is about, where that is one of several."""
        if not self.is_window:
            return None
        assert self.start_seconds is not None
        assert self.end_seconds is not None
        return Window(self.start_seconds, self.end_seconds)

    @property
    def label(self) -> str:
        """What it is about: `clip.mp4`, or `clip.mp4 0:30–1:00`."""
        return f"{self.name} {self.window}" if self.is_window else self.name


@dataclass(frozen=True)
class Question:
    """An item with its id."""

    item: Item
    item_id: str


def item_id(item: Item, content: str, settings: Mapping[str, object]) -> str:
    """24 hex digits that change with everything that can change the answer, and with the manifest's own id.

    `content` is the hash of the video, or UNREADABLE; `settings` are those asked for, as JSON values. Where the video
    is does not matter, nor do the true answer or fields and the group: correcting a label asks nothing anew. Raises
    TypeError for settings that JSON cannot hold and ValueError for numbers that are not finite.
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


VideoItems = tuple[Item, ...]
"""Items, at least one, about the same part of the same video, which is seen once for all of them."""


def group_items(items: Iterable[Item]) -> list[VideoItems]:
    """The items of each video, in the order in which the first of them come."""
    found: dict[object, list[Item]] = {}
    for item in items:
        found.setdefault((item.video, item.name, item.start_seconds, item.end_seconds), []).append(item)
    return list(map(tuple, found.values()))


def parse_shard(text: str) -> tuple[int, int]:
    """Read `I/N`, the Ith of N shards, counted from 1. UsageError if there is no such shard.

    >>> parse_shard("2/4")
    (2, 4)
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text, re.ASCII)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"There is no shard “{text}”.", "Write I/N, the Ith of N, counted from 1: 1/4 to 4/4.")
    return int(match[1]), int(match[2])


def take_shard(items: Sequence[Item], number: int, count: int) -> list[Item]:
    """The items of the `number`th of `count` shards; all items about one video are in the same shard.

    Shards are as equal as videos allow. They depend only on names and numbers of items, so that every job comes to the
    same shards.
    """
    num_items = Counter(item.name for item in items)
    shards = [(0, shard) for shard in range(1, count + 1)]
    mine = set()
    for name in sorted(num_items, key=lambda name: (-num_items[name], hashlib.sha256(os.fsencode(name)).digest())):
        held, shard = shards[0]
        heapq.heapreplace(shards, (held + num_items[name], shard))  # the shard with the fewest items
        if shard == number:
            mine.add(name)
    return [item for item in items if item.name in mine]
