"""Which items two runs share, and what changed on them."""

from collections.abc import Iterable
from pathlib import Path

from sfvqa.batch.record import Record
from sfvqa.batch.report.against import Comparison, compare_runs
from sfvqa.batch.report.facts import collect
from sfvqa.evaluation.scores import PairedCounts, Verdict
from tests.batch.report.records import failed, item, ok, write

OTHER = {"num_frames": 8}


def compared(folder: Path, new: Iterable[Record], old: Iterable[Record]) -> Comparison:
    return compare_runs(collect(write(folder / "new.jsonl", new)), collect(write(folder / "old.jsonl", old)))


def test_items_are_paired_across_settings(tmp_path: Path) -> None:
    items = [item(name, answer="left") for name in "abcdef"]
    new = [ok(items[0], "left"), ok(items[1], "left"), ok(items[2], "up"), ok(items[3], "up"), failed(items[4])]
    old = [
        ok(items[0], "left", settings=OTHER),
        ok(items[1], "up", settings=OTHER),
        ok(items[2], "left", settings=OTHER),
        ok(items[3], "down", settings=OTHER),
        ok(items[4], "left", settings=OTHER),
        ok(items[5], "left", settings=OTHER),
    ]
    comparison = compared(tmp_path, new, old)
    assert comparison.counts == PairedCounts(both=1, only_new=1, only_old=2, neither=1)
    assert (comparison.only_in_new, comparison.only_in_old) == (0, 1)
    assert [(change.video, change.old, change.new) for change in comparison.changes] == [
        ("b", Verdict.WRONG, Verdict.RIGHT),
        ("c", Verdict.RIGHT, Verdict.WRONG),
        ("e", Verdict.RIGHT, Verdict.FAILED),
    ]


def test_what_cannot_be_paired_is_counted(tmp_path: Path) -> None:
    """Two settings in one file, and a label that was corrected between the runs."""
    twice, corrected = item("twice", answer="left"), item("corrected", answer="left")
    new = [ok(twice), ok(twice, settings=OTHER), ok(corrected), ok(item("unlabelled"))]
    old = [ok(twice), ok(item("corrected", answer="right")), ok(item("unlabelled"))]
    comparison = compared(tmp_path, new, old)
    assert comparison.counts.total == 0
    assert (comparison.repeated, comparison.relabelled, comparison.only_in_new) == (1, 1, 0)
