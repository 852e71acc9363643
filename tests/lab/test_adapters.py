"""The forms of training beside each other: what each starts from, what it took, and the curve of stage 1."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.lab import adapters
from sfvqa.lab.adapters import FORMS, STAGE_1, Outcome, curve, main, measure, run_of
from sfvqa.lab.slow_path import learn_slow_path, teach_base
from tests.lab.test_slow_path import SMALLEST as SMALLEST_OF_ANY

SMALLEST = replace(SMALLEST_OF_ANY, family="llava_onevision")


@pytest.fixture(autouse=True)
def smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps in place of hundreds."""
    monkeypatch.setattr(adapters, "Settings", lambda _: SMALLEST)
    few = {form: tuple("2" if flag in ("400", "100") else flag for flag in flags) for form, flags in FORMS.items()}
    monkeypatch.setattr(adapters, "FORMS", few)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One in which slow_path's own part is done."""
    folder = tmp_path_factory.mktemp("slow-path")
    learn_slow_path(SMALLEST, teach_base(SMALLEST, folder), folder)
    return folder


@pytest.mark.slow
def test_each_form_is_a_row_and_stage_1_has_a_curve(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["--run", str(folder), "--forms", f"{STAGE_1},QLoRA after stage 1"])
    table, steps = capfd.readouterr().out.split("\n\n")
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == ["| stage 1", "| QLoRA after stage 1"]
    assert all(" of 2 | " in line and " of 6 | " in line and line.endswith(" MB |") for line in table.splitlines()[2:])
    assert [line.split(" | ")[0] for line in steps.splitlines()[2:]] == ["| 0", "| 2"]
    before, after = curve(run_of(STAGE_1, folder))
    assert (before.answers, after.answers) == (2, 2)  # of the one video that is held out
    assert before.loss != after.loss
    assert (run_of("QLoRA after stage 1", folder) / "adapter").is_dir()


def test_a_form_starts_where_its_name_says_and_is_measured_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starts = {}

    def note(form: str, start: Path, *_: object) -> Outcome:
        starts[form] = start
        return Outcome(form, 2, 1, 6, 5, seconds=90.0, peak_bytes=660_000_000)

    monkeypatch.setattr(adapters, "measure", note)
    forms = ["--run", str(folder), "--forms", "LoRA,LoRA after stage 1"]
    main(forms)
    assert starts == {"LoRA": folder / "layers-0-2", "LoRA after stage 1": folder / "run-0-2" / "checkpoint"}
    starts.clear()
    capsys.readouterr()
    main(forms)
    assert starts == {}
    assert "| LoRA after stage 1 | 1 of 2 | 5 of 6 | 1.5 min | 660.0 MB |" in capsys.readouterr().out


def test_a_form_that_was_stopped_goes_on_and_all_of_its_time_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, commands = iter([0.0, 30.0, 100.0, 110.0]), []

    def stop_once(arguments: list[str]) -> tuple[int, float]:
        commands.append(arguments)
        if len(commands) == 1:
            (run_of("LoRA", folder) / "checkpoint-50").mkdir(parents=True)
            raise KeyboardInterrupt
        return 5, 10.0

    monkeypatch.setattr(adapters, "run_finetune", stop_once)
    monkeypatch.setattr(adapters, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    monkeypatch.setattr(adapters, "are_right", lambda *_, **__: [[True, True], [False, True]])
    with pytest.raises(KeyboardInterrupt):
        measure("LoRA", folder / "layers-0-2", SMALLEST, folder)
    outcome = measure("LoRA", folder / "layers-0-2", SMALLEST, folder)
    assert commands[1] == [*commands[0], "--resume"]
    assert outcome == Outcome("LoRA", 2, 1, 2, 2, seconds=40.0, peak_bytes=5)
