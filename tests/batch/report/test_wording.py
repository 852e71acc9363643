"""Figures in words, and what to do about each kind of error."""

import pytest

from sfvqa import errors
from sfvqa.batch.report.against import Comparison
from sfvqa.batch.report.summary import StageTime, TimeSpan
from sfvqa.batch.report.wording import advice_for, difference_texts, p_text, share_text, stages_text
from sfvqa.evaluation.scores import PairedCounts, Share


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


def test_a_comparison_says_what_it_leaves_out() -> None:
    said = difference_texts(Comparison(PairedCounts(1, 7, 1, 12), (), 2, 0, 1, 0))
    assert said == [
        "Accuracy 38.1 %, before 9.5 %: +28.6 points (+2.6 to +50.7), p = 0.070.",
        "Left out: 2 only in this file, 1 more than once in a file, with other settings.",
    ]
    assert difference_texts(Comparison(PairedCounts(), (), 0, 0, 0, 0)) == [
        "The two runs have no item with a true answer in common."
    ]
