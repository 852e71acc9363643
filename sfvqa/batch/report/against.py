"""Two runs over the same labelled items, perhaps with other settings: which items match, and what changed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from sfvqa.batch.report.facts import ItemFacts, RunFacts
from sfvqa.evaluation.scores import PairedCounts, Verdict


@dataclass(frozen=True)
class Change:
    """An item that is right in one of the two runs only."""

    video: str
    question: str
    expected: str
    old: Verdict
    new: Verdict


@dataclass(frozen=True)
class Comparison:
    """The items that both runs have, by video, question, id, range and choices, and with the same true answer.

    The others are only counted: those in one run only, more than once in a run (with other settings, so that it is
    unknown which one is meant), or with another true answer.
    """

    counts: PairedCounts
    changes: tuple[Change, ...]
    only_in_new: int
    only_in_old: int
    repeated: int
    relabelled: int


def compare_runs(new: RunFacts, old: RunFacts) -> Comparison:
    """Compare item by item; an item without an answer is not right."""
    new_items, old_items = _by_key(new.items.values()), _by_key(old.items.values())
    shared = [key for key in new_items if key in old_items]
    outcomes: Counter[tuple[bool, bool]] = Counter()
    changes: list[Change] = []
    repeated = relabelled = 0
    for key in shared:
        if len(new_items[key]) > 1 or len(old_items[key]) > 1:
            repeated += 1
            continue
        (item,), (before,) = new_items[key], old_items[key]
        assert item.label is not None
        assert before.label is not None
        if item.label.expected != before.label.expected:
            relabelled += 1
            continue
        is_right, was_right = item.label.verdict is Verdict.RIGHT, before.label.verdict is Verdict.RIGHT
        outcomes[is_right, was_right] += 1
        if is_right != was_right:
            change = Change(item.video, item.question, item.label.expected, before.label.verdict, item.label.verdict)
            changes.append(change)
    return Comparison(
        counts=PairedCounts(
            both=outcomes[True, True],
            only_new=outcomes[True, False],
            only_old=outcomes[False, True],
            neither=outcomes[False, False],
        ),
        changes=tuple(changes),
        only_in_new=len(new_items) - len(shared),
        only_in_old=len(old_items) - len(shared),
        repeated=repeated,
        relabelled=relabelled,
    )


def _by_key(items: Iterable[ItemFacts]) -> dict[bytes, list[ItemFacts]]:
    """The labelled items of a run."""
    found: dict[bytes, list[ItemFacts]] = {}
    for item in items:
        if item.label is not None:
            found.setdefault(item.label.key, []).append(item)
    return found
