"""Loading a model for a command: which one, and what is said about it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.cli.render import Notices
from sfvqa.cli.session import ModelRequest, load_model
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import find_model

Loaded = list[tuple[object, ...]]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Loaded:
    """What was loaded, instead of loading it; nothing is downloaded on this machine."""
    calls: Loaded = []

    def load(model: str, **settings: object) -> SimpleNamespace:
        calls.append((model, *settings.values()))
        return SimpleNamespace(checkpoint=SimpleNamespace(quantized_copy=None))

    monkeypatch.setattr(VideoQA, "load", load)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return calls


def test_a_model_named_on_the_command_line_needs_no_words(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(ModelRequest("tiny", True, "cpu", "float32", "eager", "8bit", True), Notices(quiet=False))
    assert loaded == [("tiny", "cpu", "float32", "eager", "8bit", True)]
    assert capsys.readouterr().err == ""


def test_a_configured_model_is_said(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(ModelRequest("./my-model", False, "cpu", "auto", "sdpa"), Notices(quiet=False))
    assert loaded[0][0] == "./my-model"
    assert capsys.readouterr().err == "Using ./my-model, as configured.\n"


def test_without_any_the_bundled_one_says_what_it_can_answer(
    loaded: Loaded, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, on stderr: who is answering, and what about."""
    load_model(ModelRequest(None, False, "cpu", "auto", "sdpa"), Notices(quiet=False))
    said = capsys.readouterr()
    assert loaded[0][0] == "tiny"
    assert (said.out, len(said.err.splitlines())) == ("", 1)
    assert find_model("tiny").can_answer in said.err


def test_quiet_says_nothing(loaded: Loaded, capsys: pytest.CaptureFixture[str]) -> None:
    load_model(ModelRequest(None, False, "cpu", "auto", "sdpa"), Notices(quiet=True))
    assert (len(loaded), capsys.readouterr().err) == (1, "")
