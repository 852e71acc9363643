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
    monkeypatch.setenv("SFVQA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_a_copy_is_made_used_and_said(run_cli: RunCli, tmp_path: Path) -> None:
    made = run_cli("models", "quantize", "tiny", "--quant", "4bit", "--device", "cpu", "--json")
    copy = json.loads(made.stdout)
    assert (made.exit_code, copy["folder"]) == (0, str(tmp_path / "data" / "quantized" / "tiny-4bit"))
    asked = run_cli("ask", VIDEO.path, QUESTION, "--model", "tiny", "--quant", "4bit")
    assert asked.stdout == f"{ANSWER}\n"
    assert f"Using the 4bit copy in {copy['folder']}." in asked.stderr
    again = run_cli("models", "quantize", "tiny", "--quant", "4bit")
    assert (again.exit_code, "--force" in again.stderr) == (2, True)


def test_the_copy_is_named_on_stdout(run_cli: RunCli) -> None:
    made = run_cli("models", "quantize", "tiny", "--quant", "8bit", "--device", "cpu", "--quiet")
    assert "tiny-8bit  (tiny in 8bit, " in made.stdout
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


def test_copies_are_removed_by_themselves(run_cli: RunCli) -> None:
    """The bundled model itself cannot be removed, what was made of it can."""
    assert run_cli("models", "remove", "tiny", "--quantized", "--yes").exit_code == 4
    run_cli("models", "quantize", "tiny", "--quant", "4bit")
    assert run_cli("models", "remove", "tiny", "--quantized").exit_code == 2
    removed = json.loads(run_cli("models", "remove", "tiny", "--quantized", "--yes", "--json", "-q").stdout)
    assert removed["quantizations"] == ["4bit"]
    assert removed["freed_bytes"] > 1_000_000
    folder = Path(json.loads(run_cli("models", "quantize", "tiny", "--json").stdout)["folder"])
    (folder / "sfvqa_copy.json").write_text("damaged")
    assert run_cli("models", "remove", "tiny", "--quantized", "--yes").exit_code == 0
    assert not folder.exists()
    assert run_cli("models", "remove", "tiny", "--quantized", "--yes").exit_code == 4
