"""Whether evidence finds the moment: which moment that is, what counts as found, and the table."""

from dataclasses import replace

import numpy as np
import pytest

from sfvqa.inference import VideoQA
from sfvqa.inference.answer import Answer, FrameEvidence
from sfvqa.lab.tiny.evidence import (
    MOMENTS,
    Asked,
    Look,
    answers_it_could_have,
    as_table,
    draw_scenes,
    look,
    main,
    measure,
    moment_of,
    summarise,
)
from sfvqa.lab.tiny.questions import Family, Question
from sfvqa.lab.tiny.scenes import random_scene
from tests.cli.fake import ScriptedVideoQA

QUESTION = Question(Family.FLASH, "What flashes?", "The screen flashes red.", ("red",), ("blue", "green"))


def answer(text: str, weights: list[float]) -> Answer:
    made = ScriptedVideoQA(script=[[text]])
    evidence = tuple(FrameEvidence(float(index), index, weight) for index, weight in enumerate(weights))
    return replace(made.ask(made.encode("clip.mp4"), QUESTION.text), evidence=evidence)


@pytest.mark.parametrize(
    ("moment", "is_there", "share"),
    [(range(1, 2), True, 0.9), (range(2, 3), True, 0.9), (range(3, 4), True, 0.75), (range(4, 5), False, 0.1)],
)
def test_the_moment_is_found_where_it_or_a_neighbour_is_strongest(moment: range, is_there: bool, share: float) -> None:
    found = look(
        answer("It flashes red.", [0.05, 0.15, 0.7, 0.05, 0.0, 0.05]), QUESTION, Asked.WRITTEN, Family.FLASH, moment
    )
    assert (found.is_right, found.is_there) == (True, is_there)
    assert found.share == pytest.approx(share)


def test_an_answer_without_evidence_finds_nothing() -> None:
    found = look(answer("It flashes blue.", []), QUESTION, Asked.WRITTEN, Family.FLASH, range(3, 4))
    assert (found.is_right, found.is_there, found.share) == (False, False, 0)


@pytest.mark.parametrize("family", MOMENTS)
def test_scenes_have_the_moment_that_is_asked_for(family: Family) -> None:
    drawn = list(draw_scenes(3, family, 20))
    assert len(drawn) == 20
    for scene, question, other in drawn:
        event = scene.flash if family is Family.FLASH else scene.digit
        assert event is not None
        assert event.frame in moment_of(scene, family)
        assert (question.family, other.family) == (family, Family.COLOUR)
    assert [scene for scene, *_ in draw_scenes(3, family, 5)] == [scene for scene, *_ in drawn[:5]]


def test_a_scene_without_one_has_no_moment() -> None:
    rng = np.random.default_rng(0)
    scene = next(scene for scene in iter(lambda: random_scene(rng), None) if scene.flash is None)
    assert not moment_of(scene, Family.FLASH)


def test_choices_are_the_answers_it_could_have() -> None:
    assert answers_it_could_have(QUESTION) == [
        "The screen flashes red.",
        "The screen flashes blue.",
        "The screen flashes green.",
    ]


def test_only_right_answers_count() -> None:
    looks = [Look(Family.FLASH, Asked.WRITTEN, is_right, is_right, 0.4) for is_right in (True, True, False)]
    row = summarise(looks)[0]
    assert (row["questions"], row["right"], row["moment_is_strongest"], row["share"]) == (3, 2, 2, 1.0)
    assert "| flash | about it | 2 | 100.0% |" in as_table(summarise(looks))


@pytest.mark.slow
def test_tiny_looks_at_the_moment_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    looks = measure(VideoQA.load("tiny", device="cpu"), seed=5, count=8)
    written = [each for each in looks if each.asked is Asked.WRITTEN and each.is_right]
    assert len(written) >= 7
    assert sum(each.is_there for each in written) / len(written) >= 0.9
    main(["--questions", "2", "--json", "--device", "cpu"])
    assert '"seed": 777' in capsys.readouterr().out
