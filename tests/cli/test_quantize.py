"""`sfvqa models quantize`, `--quant` and `--random-weights` as typed."""

import json
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from tests.cli.conftest import RunCli

VIDEO = load_demo_videos()[0]
QUESTION, ANSWER = VIDEO.questions[0]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_folder_is_written_and_answers(run_cli: RunCli, tmp_path: Path) -> None:
    out = str(tmp_path / "tiny-4bit")
    made = run_cli("models", "quantize", "tiny", out, "--quant", "4bit", "--device", "cpu", "--json")
    document = json.loads(made.stdout)
    assert (made.exit_code, document["folder"], document["quantization"]) == (0, out, "4bit")
    assert document["size_bytes"] == sum(path.stat().st_size for path in Path(out).iterdir())
    asked = json.loads(run_cli("ask", VIDEO.path, QUESTION, "--model", out, "--json").stdout)
    assert (asked["answer"], asked["settings"]["quantization"]) == (ANSWER, "4bit")
    assert [warning for warning in asked["warnings"] if "trained with" in warning] == []
    assert run_cli("models", "quantize", "tiny", out).exit_code == 2
    assert run_cli("models", "verify", out).exit_code == 0


def test_the_folder_is_named_on_stdout(run_cli: RunCli, tmp_path: Path) -> None:
    out = str(tmp_path / "tiny-8bit")
    made = run_cli("models", "quantize", "tiny", out, "--quant", "8bit", "--device", "cpu", "--quiet")
    assert made.stdout.startswith(f"{out}  (tiny in 8bit, ")
    assert made.stderr == ""


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_every_quantization_answers_and_says_so(run_cli: RunCli, quantization: str) -> None:
    run = run_cli("ask", VIDEO.path, QUESTION, "--quant", quantization, "--json")
    document = json.loads(run.stdout)
    assert (document["answer"], document["warnings"]) == (ANSWER, [])
    assert document["settings"]["quantization"] == quantization
    assert document["settings"]["random_weights"] is False


def test_random_weights_say_that_they_mean_nothing(run_cli: RunCli) -> None:
    arguments = ("--model", "tiny", "--random-weights", "--quant", "4bit", "--max-new-tokens", "3", "--json")
    document = json.loads(run_cli("ask", VIDEO.path, QUESTION, *arguments).stdout)
    assert (document["model"], document["revision"]) == ("tiny", None)
    assert document["settings"]["random_weights"] is True
    assert any("random" in warning and "means nothing" in warning for warning in document["warnings"])


def test_a_model_without_weights_asks_for_the_flag(run_cli: RunCli) -> None:
    run = run_cli("ask", VIDEO.path, QUESTION, "--model", "bench-0.5b")
    assert (run.exit_code, "--random-weights" in run.stderr) == (4, True)


def test_a_folder_has_weights_already(run_cli: RunCli, tmp_path: Path) -> None:
    run = run_cli("ask", VIDEO.path, QUESTION, "--model", str(tmp_path), "--random-weights")
    assert (run.exit_code, "checkpoint folder" in run.stderr) == (2, True)
