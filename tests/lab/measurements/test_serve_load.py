"""A small version of the server's load: every good request answered right, every bad one its error."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.measurements.serve_load import Asked, Outcome, Round, endless, make_work, measure, table
from sfvqa.lab.tiny.questions import Family, Question

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.mark.skipif(sys.platform != "linux", reason="makes pipes and reads /proc")
def test_every_request_has_the_end_it_should(tmp_path: Path) -> None:
    work = make_work(tmp_path.resolve(), 32, num_good=5, num_damaged=2, num_pipes=1)
    assert len({(asked.video, asked.text) for asked in work}) == 32
    with endless(list(tmp_path.glob("pipe-*"))):
        found, wrong = measure(VideoQA.load("tiny", device="cpu"), tmp_path.resolve(), work, num_clients=4)
    assert wrong == []
    assert [each.videos for each in found] == ["new", "known"]
    assert all(each.num_right == each.num_same == 32 and each.settled_bytes > 100e6 for each in found)


def test_what_is_right_is_known() -> None:
    question = Question(Family.FLASH, "What flashes?", "The screen flashes green.", ("green",), ("red",))
    good, bad = Asked(Path("a.mp4"), question.text, question), Asked(Path("b.mp4"), "What flashes?")
    right = [Outcome(good, 200, "The screen flashes green."), Outcome(bad, 422, "It is damaged.")]
    wrong = [Outcome(good, 200, "It flashes red."), Outcome(good, 422, "It is green."), Outcome(bad, 200, "green")]
    assert all(outcome.is_right for outcome in right)
    assert not any(outcome.is_right for outcome in wrong)


def test_figures() -> None:
    each = Round("new", 400, 400, 399, server_seconds=10.0, batch_seconds=9.5, settled_bytes=1000, end_bytes=1050)
    assert (each.throughput, round(each.growth, 3)) == (0.95, 0.05)
    assert "| new | 400 | 400 | 399 | 10.0 s | 9.5 s | 0.95 × |" in table([each, replace(each, num_same=400)])
