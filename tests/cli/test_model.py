"""Choosing and loading the model of a command: which one, and what is said about it."""

from types import SimpleNamespace

import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.model import load
from sfvqa.cli.screen import Notices
from tests.cli.conftest import RunCli

VIDEO = load_demo_videos()[0].path


def test_the_settings_of_the_plan_are_those_that_are_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded: list[ModelSettings] = []

    def load_checkpoint(settings: ModelSettings) -> SimpleNamespace:
        loaded.append(settings)
        return SimpleNamespace()

    monkeypatch.setattr("sfvqa.checkpoints.load.load_checkpoint", load_checkpoint)
    settings = ModelSettings("tiny", "cpu", "float32", "eager", "8bit", True)
    load(settings, None, Notices())
    assert loaded == [settings]
    assert capsys.readouterr().err == ""


@pytest.fixture(autouse=True)
def _nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))


def say(run_cli: RunCli, *arguments: str) -> str:
    """What a dry run says on stderr about the model it chose."""
    run = run_cli("ask", VIDEO, "Q?", "--dry-run", "--device", "cpu", *arguments)
    assert run.exit_code == 0
    return run.stderr


def test_a_configured_model_is_said_where_one_wants_to_know(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_MODEL", "tiny")
    assert say(run_cli, "-v") == "Using tiny, as configured.\n"
    assert say(run_cli, "-v", "--model", "tiny") == say(run_cli, "--model", "tiny") == say(run_cli) == ""


def test_the_bundled_one_is_said_in_a_line(run_cli: RunCli) -> None:
    assert say(run_cli, "-q") == ""
    said = say(run_cli)
    assert "bundled tiny" in said
    assert say(run_cli, "-v") == said
    assert said.count("\n") == 1
