"""Loading a model for a command: which one, and what is said about it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.render import Notices
from sfvqa.cli.session import ModelRequest, load_model
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import find_model
from tests.cli.conftest import RunCli

VIDEO = str(load_demo_videos()[0].path)
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
    load_model(ModelRequest("tiny", True, "cpu", "float32", "eager", "8bit", True), None, Notices(quiet=False))
    assert loaded == [("tiny", "cpu", "float32", "eager", "8bit", True, None)]
    assert capsys.readouterr().err == ""


def say(run_cli: RunCli, *arguments: str) -> str:
    """What a dry run says on stderr about the model it chose."""
    run = run_cli("ask", VIDEO, "Q?", "--dry-run", "--device", "cpu", *arguments)
    assert run.exit_code == 0
    return run.stderr


def test_a_configured_model_is_said(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_MODEL", "tiny")
    assert say(run_cli) == "Using tiny, as configured.\n"
    assert say(run_cli, "--model", "tiny") == ""


def test_without_any_the_bundled_one_says_what_it_can_answer(run_cli: RunCli) -> None:
    """One line, on stderr: who is answering, and what about."""
    said = say(run_cli)
    assert find_model("tiny").can_answer in " ".join(said.split())
    assert said.count("Using") == 1


def test_quiet_says_nothing(run_cli: RunCli) -> None:
    assert say(run_cli, "--quiet") == ""
