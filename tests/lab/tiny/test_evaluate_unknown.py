"""What tiny says of footage and to odd questions is counted for what it is."""

import json
from pathlib import Path

import numpy as np
import pytest

from sfvqa.inference import VideoQA
from sfvqa.lab.tiny import evaluate_unknown
from sfvqa.lab.tiny.evaluate_unknown import QUESTIONS_PER_WINDOW
from sfvqa.lab.tiny.questions import REFUSAL
from sfvqa.lab.tiny.render import write_h264


class Talker:
    """Refuses every other question, and garbles what it says to odd ones; stands in for a VideoQA."""

    def __init__(self) -> None:
        self.samplings: list[object] = []

    def encode(self, path: Path, sampling: object = None, **_: object) -> str:
        assert path.stat().st_size > 0
        self.samplings.append(sampling)
        return "video"

    def answer_batch(self, questions: list[tuple[str, str]], _: object) -> list[object]:
        assert len({text for _, text in questions}) > 1
        return [self._answer(REFUSAL if number % 2 else "There are two objects.") for number in range(len(questions))]

    def ask(self, video: str, text: str, _: object) -> object:
        assert video == "video"
        return self._answer("No digit is shown." if len(text) % 2 else "IIII was")

    def _answer(self, text: str) -> object:
        return type("Answer", (), {"text": text})()


@pytest.fixture
def talker(monkeypatch: pytest.MonkeyPatch) -> Talker:
    talker = Talker()
    monkeypatch.setattr(VideoQA, "load", lambda *_, **__: talker)
    return talker


def test_footage_is_asked_about_in_windows_and_counted_by_file(
    talker: Talker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    files = [tmp_path / "long.mp4", tmp_path / "short.mp4"]
    for file, length in zip(files, (60, 3), strict=True):
        write_h264(rng.integers(0, 256, size=(length, 32, 32, 3), dtype=np.uint8), str(file))
    evaluate_unknown.main(["--footage", *map(str, files), "--windows", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    asked = 3 * QUESTIONS_PER_WINDOW
    assert found["footage"] == {file.name: {"asked": asked, "refused": asked // 2} for file in files}
    assert len({str(sampling) for sampling in talker.samplings}) > 3  # other starts, lengths and numbers of frames


@pytest.mark.usefixtures("talker")
def test_an_odd_question_counts_when_no_sentence_answers_it(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_unknown.main(["--odd", "60", "--json"])
    odd = json.loads(capsys.readouterr().out)["odd"]
    assert odd["asked"] == 60
    assert 10 < odd["no_sentence"] < 50
    evaluate_unknown.main(["--odd", "20", "--wrong", "2"])
    assert "IIII was" in capsys.readouterr().out
