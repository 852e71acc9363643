"""Figures in words, and what to do about each kind of error."""

from pathlib import Path
from typing import Any

import pytest

from sfvqa import errors
from sfvqa.batch.report.against import Comparison, compare_runs
from sfvqa.batch.report.facts import RunFacts, collect
from sfvqa.batch.report.summary import StageTime, TimeSpan
from sfvqa.batch.report.wording import (
    advice_for,
    comparison_groups_table,
    comparison_table,
    comparison_texts,
    headline,
    p_text,
    place_text,
    share_text,
    stages_text,
)
from sfvqa.evaluation.scores import Share
from tests.batch.report.records import compared, failed, item, ok, write


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("DamagedVideoError", "Repair"),  # by its place in the tree
        ("UnreadableVideoError", "asking again helps only where its reader was killed"),
        ("VideoNotFoundError", "Put the video"),
        ("ReadTimeoutError", "--read-timeout"),
        ("OutOfMemoryError", "fewer frames"),
        ("CheckpointError", "models verify"),
        ("PromptTooLongError", "Correct the items"),
    ],
)
def test_advice_fits_the_error(kind: str, advice: str) -> None:
    assert hasattr(errors, kind)
    assert advice in advice_for(kind)


@pytest.mark.parametrize("kind", ["RuntimeError", "", "ExitCode", "<script>"])
def test_of_other_errors_nothing_is_known(kind: str) -> None:
    assert advice_for(kind) == ""


@pytest.mark.parametrize(
    ("p", "text"), [(0.00005, "< 0.0001"), (0.0003, "= 0.0003"), (0.0703, "= 0.070"), (1, "= 1.000")]
)
def test_p_values(p: float, text: str) -> None:
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("active", "text"),
    [
        (2.0, "Together 3.00 s in a run of 2.00 s"),
        (10.0, "Together 3.00 s of the 10.0 s that the run took; the other 7.00"),
    ],
)
def test_stages_stand_beside_what_the_run_took(active: float, text: str) -> None:
    stages = [StageTime("read", 1.0, 1.0), StageTime("decode", 2.0, 1.0)]
    assert text in stages_text(stages, TimeSpan(0.0, active, active, 0))
    assert stages_text(stages, None) == "Together 3.00 s."


def test_shares() -> None:
    assert share_text(Share(81, 263)) == "30.8 % (25.5–36.6)"
    assert share_text(Share(0, 0)) == "–"


def runs(
    folder: Path, num_better: int, num_worse: int, num_right: int, num_wrong: int = 0, lost: tuple[str, ...] = ()
) -> Comparison:
    """Two runs that differ on so many questions about as many videos; those that are `lost` failed in the new one."""
    said = [("left", "up")] * num_better + [("up", "left")] * num_worse
    said += [("left", "left")] * num_right + [("up", "up")] * num_wrong
    items = [item(str(place), answer="left") for place in range(len(said))]
    new = [ok(of, said) for of, (said, _) in zip(items, said, strict=True)]
    old = [ok(of, said) for of, (_, said) in zip(items, said, strict=True)]
    more = [item(name, answer="left") for name in lost]
    return compared(folder, [*new, *map(failed, more)], [*old, *(ok(of, "left") for of in more)])


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (
            (9, 3, 188),
            "new.jsonl is 3.0 points better than old.jsonl: 12 of 200 questions changed, 9 for the better and 3 for "
            "the worse; p = 0.146: this could be chance.",
        ),
        (
            (0, 12, 8),
            "new.jsonl is 60.0 points worse than old.jsonl: 12 of 20 questions changed, 0 for the better and 12 for "
            "the worse; p = 0.0005: this is hardly chance.",
        ),
        (
            (2, 2, 6),
            "new.jsonl is as good as old.jsonl: 4 of 10 questions changed, 2 for the better and 2 for the worse; "
            "p = 1.000: this could be chance.",
        ),
        ((0, 0, 4), "new.jsonl and old.jsonl are right about the same 4 of 4 questions."),
        ((0, 0, 0), "new.jsonl and old.jsonl have no question in common."),
    ],
)
def test_one_line_says_which_run_is_better(counts: tuple[int, int, int], text: str, tmp_path: Path) -> None:
    assert headline(runs(tmp_path, *counts)) == text


def test_without_true_answers_the_line_says_how_many_agree(tmp_path: Path) -> None:
    new = [ok(item("a"), "left"), ok(item("b"), "It moves left."), ok(item("c"), "up")]
    old = [ok(item("a"), "Left"), ok(item("b"), "left"), ok(item("c"), "down")]
    comparison = compared(tmp_path, new, old)
    said = "new.jsonl and old.jsonl agree on 2 of 3 questions that both answered, on 1 of them word for word."
    assert headline(comparison) == said
    assert (comparison_table(comparison), comparison_groups_table(comparison)) == ([], [])


def test_figures_of_a_comparison_with_and_without_errors(tmp_path: Path) -> None:
    """The example of Fagerland and others 2013, BMC Medical Research Methodology 13, 91."""
    assert comparison_table(runs(tmp_path, 7, 1, 1, 12)) == [
        ["", "21 questions"],
        ["right in new.jsonl", "38.1 % (20.8–59.1)"],
        ["right in old.jsonl", "9.5 % (2.7–28.9)"],
        ["right only in new.jsonl", "7"],
        ["right only in old.jsonl", "1"],
        ["difference in points", "+28.6 (+2.6 to +50.7)"],
        ["p, McNemar's exact test", "0.070"],
    ]
    header, *rows = comparison_table(runs(tmp_path, 7, 1, 1, 12, ("lost",)))
    assert header == ["", "errors count as wrong", "errors left out"]
    assert [row[1:] for row in rows][0::4] == [["22", "21"], ["2", "1"]]


def test_several_questions_about_a_video_count_together(tmp_path: Path) -> None:
    """Seven questions about one video and one about each of two others: of 8 ways to swap videos, 2 are as uneven."""
    items = [item(video, question, answer="left") for video, question in zip("aaaaaaabc", "123456789", strict=True)]
    new, old = [ok(of, "left") for of in items], [ok(of, "up") for of in items]
    comparison = compared(tmp_path, new, [*old[:-1], failed(items[-1])])
    assert "p = 0.250 by whole videos: this could be chance." in headline(comparison)
    assert comparison_table(comparison)[-2:] == [
        ["p, McNemar's exact test", "0.0039", "0.0078"],
        ["p by whole videos", "0.250", "0.500"],
    ]


def test_groups_stand_side_by_side(tmp_path: Path) -> None:
    items = [item(name, answer="left", group=group) for name, group in (("a", "x"), ("b", "x"))]
    comparison = compared(tmp_path, [ok(of, "left") for of in items], [ok(items[0], "left"), ok(items[1], "up")])
    assert comparison_groups_table(comparison) == [
        ["group", "questions", "new.jsonl", "old.jsonl", "difference in points"],
        ["x", "2", "100.0 %", "50.0 %", "+50.0 (-27.3 to +90.5)"],
    ]


def test_a_comparison_says_what_it_leaves_out_and_what_it_supposes(tmp_path: Path) -> None:
    other = {"num_frames": 8}
    new = [ok(item("a/x", answer="left")), ok(item("b")), ok(item("c")), ok(item("c"), settings=other)]
    old = [ok(item("d/x", answer="right"), from_video_cache=True), ok(item("e")), ok(item("f"))]
    assert comparison_texts(compared(tmp_path, new, [*old, ok(item("c"), settings={"num_frames": 9})])) == [
        "Time per video, summed over its answers: new.jsonl 1.38 s, old.jsonl 1.38 s.",
        "The times do not compare: the video cache had seen the video of 1 of old.jsonl.",
        "Left out: 1 only in new.jsonl, 2 only in old.jsonl, 3 without a certain partner (asked with several settings, "
        "say), 1 with another true answer in each file.",
        "1 video matched by file name alone: “a/x” is taken for “d/x”.",
    ]


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    new, old = (collect(write(tmp_path / name / "out.jsonl", []), keeps_answers=True) for name in "ab")
    comparison = compare_runs(new, old)
    assert (comparison.new_name, comparison.old_name) == (str(new.path), str(old.path))


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({}, "clip.mp4"),
        ({"start_seconds": 30.0, "end_seconds": 60.0}, "clip.mp4 0:30–1:00"),
        ({"start_seconds": 30.0}, "clip.mp4 0:30–"),
        ({"end_seconds": 60.0}, "clip.mp4 0:00–1:00"),
    ],
)
def test_the_part_of_a_video_is_named(part: dict[str, Any], text: str) -> None:
    assert place_text(RunFacts().add(ok(item("clip.mp4", **part)))) == text
