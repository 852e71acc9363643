"""Accuracy with and without the items that have no answer, by group, and of two runs."""

import pytest

from sfvqa.evaluation.scores import PairedCounts, Score, Verdict, agree, judge, score_groups

RIGHT, WRONG, FAILED = Verdict


def test_an_item_without_an_answer_is_wrong_in_one_figure_and_left_out_of_the_other() -> None:
    score = Score.of([RIGHT, RIGHT, WRONG, FAILED])
    assert score.of_all.value == 0.5
    assert score.of_answered.value == pytest.approx(2 / 3)
    assert (score.of_all.total, score.of_answered.total) == (4, 3)
    assert score.of_all.interval.low < 0.5 < score.of_all.interval.high


def test_nothing_has_no_accuracy() -> None:
    assert Score.of([]).of_all.value is None
    assert Score.of([FAILED]).of_answered.value is None


def test_each_group_has_its_own_score() -> None:
    scores = score_groups([("b", RIGHT), ("a", WRONG), (None, RIGHT), ("b", FAILED)])
    assert list(scores.items()) == [("a", Score(0, 1, 0)), ("b", Score(1, 0, 1))]


def test_judging() -> None:
    assert judge("Left.", "left") is RIGHT
    assert judge("Right.", "left") is WRONG
    assert judge("", "left") is WRONG
    assert judge(None, "left") is FAILED
    assert judge("B", "up", ("left", "up")) is RIGHT


def test_two_runs() -> None:
    counts = PairedCounts(both=12, only_new=7, only_old=1, neither=1)
    assert (counts.total, counts.new_right, counts.old_right) == (21, 19, 13)
    assert counts.difference == pytest.approx(6 / 21)
    assert counts.p_value == 0.0703125
    assert counts.interval.low < 6 / 21 < counts.interval.high
    assert PairedCounts().difference is None


@pytest.mark.parametrize(
    ("one", "other", "question", "is_same"),
    [
        ("7", "The digit 7 is shown.", "Which digit is shown?", True),
        ("left", "Left.", "Which way?", True),
        ("", "", "Which way?", True),
        ("left", "right", "Which way?", False),
        ("A circle moves.", "A circle moves, and a star too.", "Describe the video.", False),  # one says less
        ("It is red.", "It is not red.", "Is it red?", False),
    ],
)
def test_answers_agree_if_each_is_right_by_the_other(one: str, other: str, question: str, is_same: bool) -> None:
    assert agree(one, other, question=question) is is_same
    assert agree(other, one, question=question) is is_same


def test_of_choices_a_part_of_another_one_is_another_one() -> None:
    choices = ("a dog", "a dog and a cat")
    assert agree("a dog", "A dog.", choices)
    assert not agree("a dog", "a dog and a cat", choices)
