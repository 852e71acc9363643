"""`sfvqa models list`, without a network."""

import json
from pathlib import Path

import pytest

import sfvqa
from sfvqa.registry import load_registry
from tests.cli.conftest import RunCli
from tests.fake_gpus import pretend_gpus


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_model_is_listed_with_what_it_costs(run_cli: RunCli) -> None:
    """Name, size and licence before anybody downloads, and the command that does."""
    run = run_cli("models", "list")
    assert (run.exit_code, run.stderr) == (0, "")
    for spec in load_registry():
        assert spec.name in run.stdout
        assert spec.license in run.stdout
        if spec.repo_id:
            assert f"sfvqa models pull {spec.name}" in run.stdout
    for speech in load_registry().speech:
        assert f"{speech.name}  (not downloaded, " in run.stdout
        assert f"sfvqa models pull {speech.name}" in run.stdout
    assert "Memory: 20.4 GB in 16 bits, 10.3 GB in 4 bits." in run.stdout  # of slowfast-7b-64f


def test_the_list_as_json(run_cli: RunCli) -> None:
    """One object with all models; what is bundled is available, what is not downloaded is not."""
    document = json.loads(run_cli("models", "list", "--json").stdout)
    assert document["schema_version"] == 1
    models = {model["name"]: model for model in document["models"]}
    assert list(models) == [spec.name for spec in load_registry()]
    speech = {model["name"]: model for model in document["speech_models"]}
    assert list(speech) == [spec.name for spec in load_registry().speech]
    tiny = speech["whisper-tiny"]
    assert (tiny["license"], tiny["available"], tiny["repo_id"]) == ("MIT", False, "Systran/faster-whisper-tiny")
    assert models["tiny"]["available"] is models["tiny"]["bundled"] is True
    assert models["slowfast-7b-64f"]["available"] is False
    memory = json.loads(
        run_cli("models", "info", "slowfast-7b-64f", "--device", "cpu", "--dtype", "bfloat16", "--json").stdout
    )
    needed = {kind: run["needed_bytes"] for kind, run in memory["memory"]["quantizations"].items()}
    assert models["slowfast-7b-64f"]["memory_bytes"] == {"16bit": needed["none"], "4bit": needed["4bit"]}


def test_info_says_what_a_model_is_and_takes(run_cli: RunCli) -> None:
    run = run_cli("models", "info", "slowfast-7b-64f", "--device", "cpu", "--frames", "128")
    assert (run.exit_code, run.stderr) == (0, "")
    for words in ("CC BY-NC 4.0", "17.0 GB", "shi-labs/", "not on this machine", "8.5 billion parameters", "none",
                  "8bit", "4bit", "128 frames on cpu in float32", "KV cache", "fits here"):  # fmt: skip
        assert words in run.stdout
    assert "gives 81 tokens a frame, or 324 for a single one;" in " ".join(run.stdout.split())


def test_info_says_what_a_speech_model_is(run_cli: RunCli) -> None:
    run = run_cli("models", "info", "whisper-tiny")
    assert (run.exit_code, run.stderr) == (0, "")
    for words in ("MIT", "75.5 MB", "Systran/faster-whisper-tiny", "not on this machine", "answers no question"):
        assert words in run.stdout
    document = json.loads(run_cli("models", "info", "whisper-tiny", "--json").stdout)
    assert (document["is_speech_model"], document["license"], document["folder"]) == (True, "MIT", None)


def test_info_as_json(run_cli: RunCli) -> None:
    run = run_cli("models", "info", "tiny", "--device", "cpu", "--quant", "4bit", "--dtype", "bfloat16", "--json")
    document = json.loads(run.stdout)
    assert (document["model"], document["license"], document["memory"]["dtype"]) == ("tiny", "Apache-2.0", "bfloat16")
    assert list(document["memory"]["quantizations"]) == ["4bit"]
    assert document["folder"].endswith("tiny")
    assert document["memory"]["quantizations"]["4bit"]["fits"] is True


def test_info_counts_the_memory_of_all_gpus(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first alone it was, whatever the plan of `ask`; and bfloat16, whether the GPU has it or not."""
    pretend_gpus(monkeypatch, 12e9, 12e9, capability=(7, 5))
    for device, fits in (("auto", True), ("cuda:0", False)):
        run = run_cli("models", "info", "slowfast-7b-64f", "--device", device, "--json")
        memory = json.loads(run.stdout)["memory"]
        assert (memory["dtype"], memory["quantizations"]["none"]["fits"]) == ("float16", fits)


def test_info_of_a_folder_and_of_a_device_that_is_not_here(run_cli: RunCli) -> None:
    folder = str(Path(sfvqa.__file__).parent / "assets" / "tiny")
    run = run_cli("models", "info", folder, "--device", "mps")
    assert run.exit_code == 0
    assert "Trained with 32 frames" in run.stdout
    assert "on mps" in run.stdout
    assert "which is not here" in run.stdout
    trained_with = json.loads(run_cli("models", "info", folder, "--json").stdout)["trained_with"]
    assert trained_with["max_length"] == json.loads((Path(folder) / "config.json").read_text())["training_max_length"]


def test_info_of_an_unknown_model(run_cli: RunCli) -> None:
    assert run_cli("models", "info", "tinny").exit_code == 4
