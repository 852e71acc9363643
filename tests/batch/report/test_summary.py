"""The figures, against records whose figures are counted by hand."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.batch.record import Record
from sfvqa.batch.report.facts import collect
from sfvqa.batch.report.summary import Summary, WrongItem, summarise
from sfvqa.errors import OutOfMemoryError
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Score
from tests.batch.report.records import ANSWER, failed, item, ok, write

TIMINGS = ANSWER.timings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def summary_of(folder: Path, records: Iterable[Record]) -> Summary:
    return summarise(collect(write(folder / "out.jsonl", records)))


def test_counts(folder: Path) -> None:
    records = [ok(item("a", "1?")), ok(item("a", "2?")), failed(item("b", "1?")), failed(item("c")), ok(item("c"))]
    summary = summary_of(folder, records)
    assert (summary.num_records, summary.num_items, summary.num_ok, summary.num_failed) == (5, 4, 3, 1)
    assert (summary.num_videos, summary.new_tokens) == (3, 18)


def test_times_are_summed_and_the_median_is_of_those_that_went_through(folder: Path) -> None:
    """The second question about a video reads and encodes nothing."""
    first = replace(TIMINGS, read_seconds=1.0, decode_seconds=0.5)
    second = replace(TIMINGS, read_seconds=0.0, decode_seconds=1.5)
    third = replace(TIMINGS, read_seconds=4.0, decode_seconds=2.0)
    records = [ok(item(question=f"{n}"), timings=t) for n, t in enumerate((first, second, third))]
    read, _, _, decode = summary_of(folder, records).stages
    assert (read.sum_seconds, read.median_seconds) == (5.0, 2.5)
    assert (decode.sum_seconds, decode.median_seconds) == (4.0, 1.5)


def test_what_a_batch_of_questions_shared_counts_once(folder: Path) -> None:
    """Each of eight answers has the time of all eight: a run of one second was said to have taken eight."""
    shared = replace(TIMINGS, prefill_seconds=0.25, decode_seconds=0.75, asked_together=8)
    records = [ok(item(question=f"{n}"), timings=replace(shared, read_seconds=0.5 * (n == 0))) for n in range(8)]
    stages = summary_of(folder, records).stages
    assert [stage.sum_seconds for stage in stages] == pytest.approx([0.5, 4.0, 0.25, 0.75])
    assert [stage.median_seconds for stage in stages] == pytest.approx([0.5, 0.5, 0.25, 0.75])


def test_the_slowest_come_first(folder: Path) -> None:
    records = [ok(item(f"{n}.mp4"), timings=replace(TIMINGS, total_seconds=float(n))) for n in range(1, 9)]
    slowest = summary_of(folder, records).slowest
    assert [entry.video for entry in slowest] == ["8.mp4", "7.mp4", "6.mp4", "5.mp4", "4.mp4"]
    assert slowest[0].longest_stage == "encode"


def test_errors_by_kind_leave_out_what_was_answered_later(folder: Path) -> None:
    full = OutOfMemoryError("Memory ran out.", "Use fewer frames.")
    records = [failed(item("a"), full), failed(item("b"), full), failed(item("c")), failed(item("d"), full)]
    summary = summary_of(folder, [*records, ok(item("a"))])
    assert [(error.kind, error.count, error.video) for error in summary.errors] == [
        ("OutOfMemoryError", 2, "b"),
        ("UnreadableVideoError", 1, "c"),
    ]
    assert summary.errors[0].message == "Memory ran out. Use fewer frames."


def test_warnings_by_kind_count_items(folder: Path) -> None:
    records = [ok(item(str(n)), warnings=(f"{n} frames are missing.", "6 frames are missing.")) for n in (1, 2)]
    (warning,) = summary_of(folder, records).warnings
    assert (warning.count, warning.example) == (2, "1 frames are missing.")


def test_mixed_settings_are_told_with_what_they_differ_in(folder: Path) -> None:
    of = {"model": "tiny", "sampling": {"num_frames": 4, "strategy": "uniform"}}
    other = {"model": "tiny", "sampling": {"num_frames": 8, "strategy": "uniform"}, "crop": "pad"}
    records = [ok(item("a"), settings=of), ok(item("a"), settings=other), ok(item("b"), settings=of)]
    summary = summary_of(folder, records)
    assert [(use.count, use.differing) for use in summary.settings] == [
        (2, {"crop": None, "sampling.num_frames": 4}),
        (1, {"crop": "pad", "sampling.num_frames": 8}),
    ]
    (notice,) = summary.notices
    assert "crop, sampling.num_frames" in notice


def test_ranges_and_choices_of_items_are_no_settings(folder: Path) -> None:
    records = [ok(item("a", start_seconds=1.0)), ok(item("b", choices=("x", "y"))), failed(item("c"))]
    summary = summary_of(folder, records)
    assert (len(summary.settings), summary.notices) == (1, ())
    assert [(answerer.model, answerer.count) for answerer in summary.answerers] == [("tiny", 2)]


def test_scores_by_group(folder: Path) -> None:
    records = [
        ok(item("a", answer="left", group="x"), "Left"),
        ok(item("b", answer="left", group="y"), "right"),
        failed(item("c", answer="left", group="y")),
        ok(item("d", group="y"), "left"),
    ]
    summary = summary_of(folder, records)
    assert summary.score == Score(1, 1, 1)
    assert summary.groups == {"x": Score(1, 0, 0), "y": Score(0, 1, 1)}


def test_wrong_answers_are_listed_by_the_rule_that_is_asked_for(folder: Path) -> None:
    records = [
        ok(item("a", "Which digit is shown?", answer="3"), "The digit 3 is shown."),
        ok(item("b", "Which digit is shown?", answer="3"), "The digit 4 is shown."),
        ok(item("c", "Which digit is shown?", answer="The digit 3 is shown."), "Three"),
        failed(item("d", answer="3")),
        ok(item("e"), "unlabelled"),
    ]
    path = write(folder / "out.jsonl", records)
    summary, exact = summarise(collect(path)), summarise(collect(path, Rule.EXACT))
    assert (summary.score, exact.score) == (Score(2, 1, 1), Score(0, 3, 1))
    assert summary.wrong == (WrongItem("b", "Which digit is shown?", "3", "The digit 4 is shown."),)
    assert [item.video for item in exact.wrong] == ["a", "b", "c"]


def test_without_labels_there_is_no_score(folder: Path) -> None:
    assert summary_of(folder, [ok()]).score is None


def test_nothing_can_be_summarised(folder: Path) -> None:
    summary = summary_of(folder, [])
    assert (summary.num_items, summary.span, summary.slowest, summary.errors) == (0, None, (), ())
