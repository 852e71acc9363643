"""What waits for a GPU runs on the CPU meanwhile, keeps what it has, and ends in time."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sfvqa.lab.measurements import gpu
from sfvqa.lab.measurements.gpu import WANTED, Outcome, as_table
from sfvqa.lab.measurements.gpu_steps import STEPS, Setting
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, write_numbered

STEPS_SHOWN = "bf16,none such,doctor,tests"
DRY = ("--device", "cpu", "--model", "tiny", "--repeats", "1", "--new-tokens", "4")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "small.mp4"
    write_numbered(NumberedVideo(path.name, "", "libx264", 320, 180, 6, 50), path)
    return path


@pytest.fixture(scope="module")
def measured(video: Path) -> dict[str, dict[str, object]]:
    """The figures of every step that needs no other process, on the CPU."""
    setting = Setting("tiny", "cpu", video, repeats=1, new_tokens=4)
    return {
        name: {figure.name: figure.value for figure in step(setting)}
        for name, step in STEPS.items()
        if name not in ("doctor", "tests")
    }


def test_every_figure_that_is_wanted_is_measured(measured: dict[str, dict[str, object]]) -> None:
    found = {(step, name) for step, figures in measured.items() for name in figures}
    assert {wanted for wanted in WANTED if wanted[0] != "tests"} <= found


def test_figures_are_plausible(measured: dict[str, dict[str, object]]) -> None:
    for step in ("bf16", "nf4"):
        figures = measured[step]
        document = figures["profile"]
        assert isinstance(document, dict)
        assert document["settings"]["static_decode"] is True
        assert document["model"]["quantization"] == ("none" if step == "bf16" else "4bit")
        without = figures["profile without graphs"]
        assert isinstance(without, dict)
        assert without["settings"]["static_decode"] is False
        assert isinstance(figures["64 frames"], float)
        assert figures["64 frames"] > 0
    assert measured["pixels"] == dict.fromkeys(measured["pixels"], "yes")
    calls = measured["launches"]["calls of a token"]
    assert isinstance(calls, dict)
    assert calls["aten::embedding"] == 1, "a token a step, after the difference is taken"


def test_a_run_goes_on_after_a_step_that_fails_or_takes_too_long(
    tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "LIMIT_SECONDS", {"bf16": 0.1, "doctor": 400, "tests": 400})
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), *DRY, "--video", str(video), "--limit-s", "900", "--steps", STEPS_SHOWN])
    document = json.loads((tmp_path / "gpu.json").read_text())
    stopped, failed, doctor, tests = document["steps"]
    assert [step["status"] for step in document["steps"]] == ["stopped", "failed", "ok", "ok"]
    assert "invalid choice" in failed["log"]
    assert stopped["figures"] == []
    assert doctor["figures"][0]["value"]["choice"]["model"] == "tiny"
    assert {"name": "exit code", "value": 0, "unit": ""} in tests["figures"]
    assert "| **bf16** | stopped, 0 s |" in (tmp_path / "gpu.md").read_text()


def test_no_step_is_begun_without_time_for_it(tmp_path: Path, video: Path) -> None:
    gpu.main(["--out", str(tmp_path), *DRY, "--video", str(video), "--limit-s", "1"])
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert {step["status"] for step in document["steps"]} == {"skipped"}


def test_a_step_that_is_stopped_keeps_what_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = [{"name": "a", "value": 1, "unit": "s"}]
    (tmp_path / "slow.json").write_text(json.dumps(figures))
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nsleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    outcome = gpu.run_step("slow", [], tmp_path, 0.1)
    assert (outcome.status, outcome.figures) == ("stopped", figures)


def test_the_table_judges_a_gpu_only() -> None:
    figures: list[dict[str, Any]] = [
        {"name": "64 frames", "value": 200.04, "unit": "tokens/s"},
        {"name": "profile", "value": {}, "unit": None},
    ]
    outcome = Outcome("bf16", "ok", 12.3, figures)
    assert as_table([outcome], compares=True).endswith("|  | 64 frames | 200 tokens/s | ≥ 180 | yes |")
    assert as_table([outcome], compares=False).endswith("|  | 64 frames | 200 tokens/s | ≥ 180 |  |")
