"""What a run's folder holds is checked before anything is loaded: hours may lie in it."""

import json
import logging
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfvqa.errors import UsageError
from sfvqa.training.run_folder import check_new_run, check_settings, last_state, read_settings, write_settings
from tests.windows import needs_modes


def write_state(run: Path, step: int) -> Path:
    """What Trainer saves at a step, with next to nothing in it."""
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"weight": torch.zeros(100)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.zeros(100)}, folder / name)
    (folder / "trainer_state.json").write_text("{}")
    return folder


def test_the_last_state_is_that_of_the_most_steps(tmp_path: Path) -> None:
    """A folder that somebody put aside was once a traceback: `old` is no number of steps."""
    for step in (8, 10, 9):
        write_state(tmp_path, step)
    (tmp_path / "checkpoint-10").rename(tmp_path / "checkpoint-old")
    (tmp_path / "checkpoint").mkdir()
    assert last_state(tmp_path) == tmp_path / "checkpoint-9"


@pytest.mark.parametrize("keeps", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_state_with_a_file_cut_short_is_not_gone_on_from(
    name: str, keeps: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The one before it is. An optimizer cut short once was a traceback of torch's."""
    write_state(tmp_path, 1)
    path = write_state(tmp_path, 2) / name
    os.truncate(path, int(path.stat().st_size * keeps))
    with caplog.at_level(logging.WARNING):
        assert last_state(tmp_path) == tmp_path / "checkpoint-1"
    assert f"checkpoint-2: {name}" in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json"])
def test_a_state_without_a_file_is_not_gone_on_from(name: str, tmp_path: Path) -> None:
    """Without its optimizer's file Trainer would begin with a new optimizer, and say nothing."""
    (write_state(tmp_path, 1) / name).unlink()
    with pytest.raises(UsageError, match="There is no saved state"):
        last_state(tmp_path)


def test_settings_are_compared_one_by_one(tmp_path: Path) -> None:
    write_settings(tmp_path, {"crop": "pad", "seed": 1, "shares": (1, 2)})
    before = read_settings(tmp_path)
    check_settings(tmp_path, before, {"crop": "pad", "seed": 1, "shares": (1, 2)})
    with pytest.raises(UsageError, match=r"has crop 'pad' \(now 'center'\), seed 1 \(now 2\)\."):
        check_settings(tmp_path, before, {"crop": "center", "seed": 2})


def test_what_a_run_of_an_earlier_version_does_not_name_is_as_today_s_default(tmp_path: Path) -> None:
    """An option that came since made every run that had begun before impossible to resume."""
    check_settings(tmp_path, {"seed": 0}, {"seed": 0, "group_by_length": False, "lora_rank": None})
    with pytest.raises(UsageError, match=r"group_by_length False \(now True\)"):
        check_settings(tmp_path, {"seed": 0}, {"seed": 0, "group_by_length": True})


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\x00"])
def test_settings_that_are_broken_are_said(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(UsageError, match=r"settings\.json .*leave out resume=True"):
        read_settings(tmp_path)


@needs_modes
def test_a_run_begins_in_an_empty_folder_that_can_be_written_to(tmp_path: Path) -> None:
    check_new_run(tmp_path / "a" / "b")
    write_settings(tmp_path / "a" / "b", {})
    check_new_run(tmp_path / "a" / "b")  # nothing was saved: the run may be started again
    with pytest.raises(UsageError, match="is not empty"):
        check_new_run(tmp_path / "a")
    file = tmp_path / "file"
    file.write_text(json.dumps({}))
    for run in (file, file / "inside", Path("/proc/run"), Path("/proc")):
        with pytest.raises(UsageError, match=f"{run} cannot be written to"):
            check_new_run(run)
    with pytest.raises(UsageError, match="no saved state"):
        read_settings(file)
