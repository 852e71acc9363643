"""How two runs did on the items that they share."""

from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.batch.report.against import Comparison, Outcome, RunTime, SettingDifference, compare_runs
from sfvqa.batch.report.facts import RunFacts
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import PairedCounts, Share, Verdict
from tests.batch.report.records import ANSWER, SETTINGS, compared, failed, item, ok

OTHER = {**SETTINGS, "num_frames": 8}


def outcomes(comparison: Comparison) -> list[Outcome]:
    return [pair.outcome for pair in comparison.pairs.values()]


def test_right_and_wrong_item_by_item(tmp_path: Path) -> None:
    items = [item(name, answer="left") for name in "abcdefg"]
    new = ["left", "left", "up", "up", "up", None, None]
    old = ["Left.", "up", "left", "down", "Up.", "left", None]
    comparison = compared(
        tmp_path,
        [failed(of) if said is None else ok(of, said) for of, said in zip(items, new, strict=True)],
        [failed(of, settings=OTHER) if said is None else ok(of, said, settings=OTHER)
         for of, said in zip(items, old, strict=True)],
    )  # fmt: skip
    assert comparison.counts == PairedCounts(both=1, only_new=1, only_old=2, neither=3)
    assert comparison.answered == PairedCounts(both=1, only_new=1, only_old=1, neither=2)
    assert outcomes(comparison) == ["alike", "better", "worse", "both wrong", "alike", "worse", "alike"]
    assert [
        (pair.new.video, pair.old_verdict, pair.new_verdict, pair.old.answer, pair.new.answer)
        for pair in comparison.changes
    ] == [
        ("b", Verdict.WRONG, Verdict.RIGHT, "up", "left"),
        ("c", Verdict.RIGHT, Verdict.WRONG, "left", "up"),
        ("d", Verdict.WRONG, Verdict.WRONG, "down", "up"),
        ("f", Verdict.RIGHT, Verdict.FAILED, "left", None),
    ]


def test_without_true_answers_there_is_agreement_alone(tmp_path: Path) -> None:
    said = [("left", "Left."), ("It moves left.", "left"), ("left", "right"), ("left", None), (None, None)]
    comparison = compared(
        tmp_path,
        [ok(item(str(place)), new) if new else failed(item(str(place))) for place, (new, _) in enumerate(said)],
        [ok(item(str(place)), old) if old else failed(item(str(place))) for place, (_, old) in enumerate(said)],
    )
    assert comparison.counts == PairedCounts()
    assert (comparison.exact, comparison.relaxed) == (Share(1, 3), Share(2, 3))
    assert outcomes(comparison) == ["alike", "alike", "different", "different", "alike"]


def test_by_the_exact_rule_other_words_are_another_answer(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [ok(item(), "It moves left.")], [ok(item(), "left")], Rule.EXACT)
    assert (comparison.relaxed, outcomes(comparison)) == (Share(0, 1), [Outcome.DIFFERENT])


def test_of_choices_only_the_same_one_agrees(tmp_path: Path) -> None:
    of = item(choices=("a dog", "a dog and a cat"))
    assert compared(tmp_path, [ok(of, "a dog")], [ok(of, "a dog and a cat")]).relaxed == Share(0, 1)


def test_a_true_answer_that_one_run_has_judges_both(tmp_path: Path) -> None:
    bare, labelled = item(), item(answer="left", group="motion")
    for new, old in ((bare, labelled), (labelled, bare)):
        comparison = compared(tmp_path, [ok(new, "up")], [ok(old, "left", settings=OTHER)])
        assert comparison.counts == PairedCounts(only_old=1)
        assert comparison.groups == {"motion": PairedCounts(only_old=1)}


def test_true_answers_that_contradict_each_other_judge_neither(tmp_path: Path) -> None:
    comparison = compared(tmp_path, [ok(item(answer="left"), "left")], [ok(item(answer="right"), "left")])
    assert (comparison.counts.total, comparison.relabelled, comparison.exact) == (0, 1, Share(1, 1))


def test_a_true_answer_in_another_case_is_the_same(tmp_path: Path) -> None:
    """All items were left out where one manifest was tidied."""
    comparison = compared(tmp_path, [ok(item(answer="Left."), "left")], [ok(item(answer="left"), "up")])
    assert (comparison.counts, comparison.relabelled) == (PairedCounts(only_new=1), 0)


def test_groups_have_their_own_counts(tmp_path: Path) -> None:
    items = [item(name, answer="left", group=group) for name, group in (("a", "x"), ("b", "x"), ("c", "y"))]
    new, old = [ok(of, "left") for of in items], [ok(items[0], "left"), ok(items[1], "up"), failed(items[2])]
    assert compared(tmp_path, new, old).groups == {"x": PairedCounts(both=1, only_new=1), "y": PairedCounts(only_new=1)}


def test_time_is_of_the_videos_that_both_answered(tmp_path: Path) -> None:
    """Each answer of `ok` adds 1.375 s, and 1.0625 s where two share prefill and decode. Nothing compares with b."""
    together = replace(ANSWER.timings, asked_together=2)
    new = [ok(item("a"), timings=together), ok(item("a", "Why?"), timings=together), ok(item("b")), ok(item("c"))]
    old = [ok(item("a"), from_video_cache=True), ok(item("a", "Why?")), failed(item("b")), ok(item("c"))]
    comparison = compared(tmp_path, new, old)
    assert comparison.num_videos == 2
    assert comparison.new_time == RunTime((2 * 1.0625 + 1.375) / 2, 0)
    assert comparison.old_time == RunTime(3 * 1.375 / 2, 1)


def test_settings_that_differ_stand_beside_each_other(tmp_path: Path) -> None:
    """As used where that is recorded: both asked for `auto`, which came to different quantizations."""
    new = [ok(item(name), settings={**SETTINGS, "quantization": "auto"}) for name in "abc"]
    old = [ok(item("a"), settings={**OTHER, "quantization": "auto"}), ok(item("b")), ok(item("c"))]
    for record in old:
        record |= {"settings": {**record["settings"], "quantization": "int4"}, "model": "other"}
    assert compared(tmp_path, new, old).settings == (
        SettingDifference("model", ("tiny",), ("other",)),
        SettingDifference("num_frames", ("4",), ("4", "8")),
        SettingDifference("quantization", ("none",), ("int4",)),
    )


@pytest.mark.parametrize("old", [RunFacts(), RunFacts(rule=Rule.EXACT, keeps_answers=True)])
def test_runs_that_cannot_be_compared_are_an_error(old: RunFacts) -> None:
    """Without answers nothing would agree, and by two rules a right answer would be a wrong one."""
    with pytest.raises(ValueError, match="keep their answers"):
        compare_runs(RunFacts(keeps_answers=True), old)


def test_changes_come_by_video_and_part(tmp_path: Path) -> None:
    """However the batch happened to finish."""
    parts = [item("b"), item("a", start_seconds=2.0), item("a", start_seconds=1.0)]
    comparison = compared(tmp_path, [ok(of, "x") for of in parts], [ok(of, "y") for of in parts])
    assert [(pair.new.video, pair.new.asked.start_seconds) for pair in comparison.changes] == [
        ("a", 1.0),
        ("a", 2.0),
        ("b", None),
    ]
