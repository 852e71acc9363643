"""An item, one question about one video, and the id by which what was answered is known again. Opens nothing."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

UNREADABLE = "unreadable"
"""The content of a video that could not be hashed."""

_ID_LENGTH = 24


@dataclass(frozen=True)
class Item:
    """One question about one video.

    `video` can be opened from here; `name` is what records call it: its path relative to the folder or the manifest,
    with "/" between parts. `own_id`, `answer` (the true one) and `group` are the manifest's.
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


def item_id(item: Item, content: str, settings: Mapping[str, object]) -> str:
    """24 hex digits that change with everything that can change the answer, and with the manifest's own id.

    `content` is what `hash_content` says of the video, or UNREADABLE; `settings` are those asked for, as JSON has them.
    Where the video lies does not matter, nor the true answer or the group: a label that is corrected asks nothing
    anew. Raises TypeError for settings that JSON cannot hold and ValueError for numbers that are not finite.
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
