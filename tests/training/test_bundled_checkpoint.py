"""The checkpoint that the package carries answers the demo videos, admits what it cannot, and fits its size."""

import pytest

from sfvqa.inference import VideoQA
from sfvqa.inference.locate import locate
from sfvqa.training.demo import DEMOS, bundled_folder
from sfvqa.training.evaluate import evaluate, summarise
from sfvqa.training.out_of_scope import REFUSAL


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.mark.parametrize("demo", DEMOS, ids=lambda demo: demo.file)
def test_demo_questions_get_their_true_answers(demo: object, tiny: VideoQA) -> None:
    chosen = next(known for known in DEMOS if known is demo)
    video = tiny.encode(bundled_folder() / chosen.file)
    answers = tiny.answer_batch([(video, question) for question, _ in chosen.questions])
    assert [answer.text for answer in answers] == [answer for _, answer in chosen.questions]


def test_what_it_was_not_trained_on_it_does_not_pretend_to_know(tiny: VideoQA) -> None:
    video = tiny.encode(bundled_folder() / DEMOS[0].file)
    for question in ("What is the man saying?", "Is it raining?", "What is 12 plus 30?"):
        assert tiny.ask(video, question).text == REFUSAL


def test_fresh_videos_are_answered(tiny: VideoQA) -> None:
    """Sixty questions are too few for the number in the README, and enough to notice a broken checkpoint."""
    summary = summarise(evaluate(tiny, seed=7, count=60))
    accuracy = summary["accuracy"]
    assert isinstance(accuracy, float)
    assert accuracy > 0.8


def test_the_folder_is_small() -> None:
    files = [path for path in locate("tiny").folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 10_000_000
