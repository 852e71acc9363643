"""Which items of two runs are the same question about the same part of the same video, whatever the settings."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import PureWindowsPath

from sfvqa.batch.report.facts import ItemFacts, RunFacts


@dataclass(frozen=True)
class Pairing:
    """Item ids that belong together, new and old, in the order of the new run; and how many items have no partner.

    `num_unclear` items have candidates, but none for sure, as where a file holds a question with several settings.
    `renamed` holds the old names, by the new ones, of videos that have only their file names in common.
    """

    pairs: tuple[tuple[str, str], ...]
    only_in_new: int
    only_in_old: int
    num_unclear: int
    renamed: dict[str, str]


_Names = Mapping[str, str | None]
"""What each video is known by, None where that could be another one."""

# The surest first: a file may hold a question more than once, with several settings or with ids of the manifest's own.
_LIKENESSES: tuple[Callable[[ItemFacts], Hashable], ...] = (
    lambda item: (item.asked, item.own_id, item.setup.requested),
    lambda item: (item.asked, item.own_id),
    lambda item: item.asked,
)


def pair_items(new: RunFacts, old: RunFacts) -> Pairing:
    """Pair what one item of each run has in common, and no other: videos by their names, then by their file names."""
    old_of: dict[str, str] = {}
    taken: set[str] = set()
    for known_by, likeness in product((_names, _file_names), _LIKENESSES):
        if len(old_of) == min(len(new.items), len(old.items)):
            break
        others = _single(old, known_by(old), likeness)
        for what, item_id in _single(new, known_by(new), likeness).items():
            other = others.get(what)
            if other is not None and item_id not in old_of and other not in taken:
                old_of[item_id] = other
                taken.add(other)
    new_left = [_loosely(item) for item_id, item in new.items.items() if item_id not in old_of]
    old_left = [_loosely(item) for item_id, item in old.items.items() if item_id not in taken]
    in_new, in_old = set(map(_loosely, new.items.values())), set(map(_loosely, old.items.values()))
    only_in_new = sum(what not in in_old for what in new_left)
    only_in_old = sum(what not in in_new for what in old_left)
    videos = ((new.items[one].video, old.items[other].video) for one, other in old_of.items())
    return Pairing(
        pairs=tuple((item_id, old_of[item_id]) for item_id in new.items if item_id in old_of),
        only_in_new=only_in_new,
        only_in_old=only_in_old,
        num_unclear=len(new_left) + len(old_left) - only_in_new - only_in_old,
        renamed={video: other for video, other in videos if video != other},
    )


def _single(run: RunFacts, names: _Names, likeness: Callable[[ItemFacts], Hashable]) -> dict[Hashable, str]:
    """The ids of the items that are like no other of their run."""
    whats = {item_id: (names[item.video], likeness(item)) for item_id, item in run.items.items()}
    counts = Counter(whats.values())
    return {what: item_id for item_id, what in whats.items() if what[0] is not None and counts[what] == 1}


def _names(run: RunFacts) -> _Names:
    return {item.video: item.video for item in run.items.values()}


def _file_names(run: RunFacts) -> _Names:
    """The file name of each video that shares it with no other of its run."""
    names = {video: _file_name(video) for video in _names(run)}
    counts = Counter(names.values())
    return {video: name if counts[name] == 1 else None for video, name in names.items()}


def _file_name(video: str) -> str:
    return PureWindowsPath(video).name  # whichever of / and \ divides the path


def _loosely(item: ItemFacts) -> Hashable:
    return _file_name(item.video), item.asked
