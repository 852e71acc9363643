"""What training takes of memory is measured once, and set beside an estimate that is made anew."""

import json
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.lab.measurements import training_memory
from sfvqa.lab.measurements.training_memory import Measured, main, table
from sfvqa.training.memory import TrainingMemory


def memory(**parts: int) -> TrainingMemory:
    none = {each.name: 0 for each in fields(TrainingMemory) if each.name != "device"}
    return TrainingMemory("cpu", **none | {f"{name}_bytes": size for name, size in parts.items()})


def test_a_form_is_measured_once_and_estimated_anew(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = tmp_path / "figures.json"
    arguments = ["--model", "tiny", "--frames", "4", "--forms", "stage 1", "--folder", str(tmp_path)]
    main([*arguments, "--json", str(figures)])
    first = capfd.readouterr().out.splitlines()[-1]
    assert first.startswith("| stage 1 | ")
    peak = json.loads(figures.read_text())["peaks"]["stage 1"]
    assert peak["measured"]["peak_bytes"] > peak["estimated"]["weights_bytes"] > 0
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(training_memory, "run_finetune", lambda _: pytest.fail("it was measured before"))
    monkeypatch.setattr(training_memory, "dry_run", lambda *_: SimpleNamespace(memory=memory(step=2 * 10**9)))
    main(arguments)
    again = capfd.readouterr().out.splitlines()[-1]
    assert "| 2.0 GB | " in again
    assert again.split(" | ")[3] == first.split(" | ")[3]


def test_the_table_says_by_how_much_an_estimate_is_off_and_when_it_is_highest() -> None:
    estimated = memory(process=10**9, host_process=10**9, step=10**9, loading=5 * 10**9)
    printed = table({"stage 1": (estimated, Measured(8 * 10**9, 1.0))})
    assert printed.splitlines()[-1] == "| stage 1 | loading | 6.0 GB | 8.0 GB | -25 % |"
