"""The evaluation asks fresh questions evenly, through real files, and its numbers mean what they say."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference import VideoQA
from sfvqa.lab.tiny import evaluate as evaluation
from sfvqa.lab.tiny.demo import write_demos
from sfvqa.lab.tiny.evaluate import Outcome, draw_questions, summarise
from sfvqa.lab.tiny.questions import REFUSAL, REFUSAL_CORE, Family, Question
from sfvqa.lab.tiny.render import frame_times, render, write_video
from sfvqa.lab.tiny.scenes import NUM_FRAMES, Flash, random_scene
from sfvqa.video.fitting import FitSquare
from sfvqa.video.reading import read_clip
from sfvqa.video.sampling import SamplingOptions


def test_families_are_asked_evenly_and_repeatably() -> None:
    drawn = [question for _, questions in draw_questions(5, 103) for question in questions]
    counts = Counter(question.family for question in drawn)
    assert len(drawn) == 103
    assert set(counts) == set(Family)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert drawn == [question for _, questions in draw_questions(5, 103) for question in questions]
    assert drawn != [question for _, questions in draw_questions(6, 103) for question in questions]


def test_summary_counts_by_family() -> None:
    red = Question(Family.COLOUR, "?", "red", ("red",), ("blue",))
    blue = Question(Family.COLOUR, "?", "blue", ("blue",), ("red",))
    seven = Question(Family.DIGIT, "?", "7", ("7",))
    outcomes = [
        Outcome(Question(Family.OUT_OF_SCOPE, "?", REFUSAL, (REFUSAL_CORE,)), REFUSAL, 2),
        Outcome(red, "It is red.", 0),
        Outcome(red, "blue", 0),
        Outcome(blue, "blue", 1),
        Outcome(seven, REFUSAL, 1),
    ]
    summary = summarise(outcomes)
    assert summary["accuracy"] == 0.6
    assert summary["videos"] == 3
    assert summary["refused_in_scope"] == 0.25
    assert summary["families"] == {
        "color": {"accuracy": 2 / 3, "questions": 3, "commonest": 2 / 3},
        "digit": {"accuracy": 0.0, "questions": 1, "commonest": 1.0},
        "out_of_scope": {"accuracy": 1.0, "questions": 1, "commonest": 1.0},
    }


@pytest.mark.parametrize("num_frames", [32, 50, 96, 120])
def test_a_written_video_is_read_back_as_the_frames_of_training(num_frames: int, tmp_path: Path) -> None:
    """A flash of one sampled frame must be seen once, neither missed nor twice, whatever the length of the file."""
    rng = np.random.default_rng(num_frames)
    scene = next(scene for scene in iter(lambda: random_scene(rng), None) if isinstance(scene.flash, Flash))
    path = tmp_path / "scene.mp4"
    write_video(scene, path, size=128, num_frames=num_frames)
    clip = read_clip(path, SamplingOptions(num_frames=NUM_FRAMES), fit=FitSquare(64))
    assert len(clip.frames) == NUM_FRAMES
    times = frame_times(num_frames)[list(clip.indices)]
    assert np.abs(times - np.arange(NUM_FRAMES)).max() < 0.5
    if num_frames >= 96:
        difference = np.abs(clip.frames.astype(int) - render(scene, 64)).mean(axis=(1, 2, 3))
        assert difference.max() < 5


class Parrot:
    """Answers everything alike; stands in for a VideoQA."""

    def encode(self, path: Path, **_: object) -> str:
        assert path.stat().st_size > 0
        return "video"

    def answer_batch(self, questions: list[tuple[str, str]], _: object) -> list[object]:
        assert all(video == "video" for video, _ in questions)
        return [type("Answer", (), {"text": "The screen flashes red."})() for _ in questions]


def test_evaluate_and_its_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(VideoQA, "load", lambda *_, **__: Parrot())
    evaluation.main(["--questions", "20", "--seed", "3", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["questions"] == 20
    assert set(summary["families"]) == {family.value for family in Family}
    assert summary["families"]["count"]["accuracy"] == 0
    evaluation.main(["--questions", "10", "--wrong", "2"])
    table = capsys.readouterr().out
    assert "describe" in table
    assert "not '" in table


def test_demo_videos_are_small_and_listed(tmp_path: Path) -> None:
    write_demos(tmp_path, size=64, num_frames=32)
    assert {path.name for path in tmp_path.iterdir()} == {Path(video.path).name for video in load_demo_videos()}
    assert all(0 < path.stat().st_size < 300_000 for path in tmp_path.iterdir())
