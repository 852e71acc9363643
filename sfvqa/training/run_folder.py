"""The folder of a run: its settings, the states that Trainer saves in it, and which process writes there."""

import json
import logging
import os
import re
import shutil
import tempfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from sfvqa.errors import UsageError
from sfvqa.training.engines import Engine
from sfvqa.training.options import FineTuning

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
KEPT_VIDEOS = "kept-videos"
STREAMED_VIDEOS = "streamed-videos"
FIGURES_FILE = "validation.json"
_LOGS = "runs"  # TensorBoard's, by Trainer
_NO_STATE = {SETTINGS_FILE, KEPT_VIDEOS, STREAMED_VIDEOS, FIGURES_FILE, _LOGS}
_STATE = re.compile(r"checkpoint-(\d+)")  # Trainer's name for what it saves at a step
_WRITTEN_LAST = "trainer_state.json"
_BEGIN = "To start a run, leave out --resume and name a new or empty folder."


def is_first_process() -> bool:
    """Whether this is the process that writes and prints."""
    return int(os.environ.get("RANK", "0")) == 0


def leave_group() -> None:
    """Leave the process group, if any, once all processes have arrived here.

    A process that ends with its group's threads running may abort; the launcher then ends the one that still writes.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        if Engine.launched() is Engine.ZERO3:  # DeepSpeed has references of its own to the group
            import deepspeed

            deepspeed.comm.destroy_process_group()
        else:
            torch.distributed.destroy_process_group()


def check_new_run(run: Path) -> None:
    """Raise UsageError unless a run can start in a folder: it must be empty and writable.

    What a run leaves that failed before it saved a state is nothing: it can be started again.
    """
    if not is_first_process():
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        held = [entry.name for entry in run.iterdir() if entry.name not in _NO_STATE]
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise UsageError(f"{run} cannot be written to: {error.strerror or error}.", "Name another folder.") from error
    if held:
        raise UsageError(f"{run} is not empty.", "Name another folder, or continue with --resume.")


def clear_kept_videos(run: Path) -> None:
    """Delete what the run kept of videos, now that it is done."""
    if is_first_process():
        shutil.rmtree(run / KEPT_VIDEOS, ignore_errors=True)


def write_settings(run: Path, settings: dict[str, Any]) -> None:
    """Save the settings of a run that is about to train."""
    if is_first_process():
        (run / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_settings(run: Path) -> dict[str, Any]:
    """Read the settings of the run in a folder; UsageError if there are none that can be read."""
    path = run / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"There is no saved state in {run}.", _BEGIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", _BEGIN) from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path} does not hold the settings of a run.", _BEGIN)
    return settings


def check_settings(run: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise UsageError, naming every difference, unless the run in a folder has these settings.

    What a run of an earlier version does not name, it did as the default of today does.
    """
    now = json.loads(json.dumps(settings))
    unnoted = {name: now[name] for name in ("engine", "num_processes") if name in now}
    before = json.loads(json.dumps(asdict(FineTuning()))) | unnoted | before
    if changed := [name for name in now if before.get(name) != now[name]]:
        said = ", ".join(f"{name} {before.get(name)!r} (now {now[name]!r})" for name in changed)
        raise UsageError(f"The run in {run} has {said}.", "Give the same settings, or start another run.")


def last_state(run: Path) -> Path:
    """The last folder `checkpoint-N` with complete files; UsageError if there is none."""
    found = {int(match[1]): path for path in run.glob("*") if (match := _STATE.fullmatch(path.name))}
    for _, state in sorted(found.items(), reverse=True):
        if (flaw := _flaw(state)) is None:
            return state
        logger.warning("Skipping %s: %s, as when a run is interrupted while saving.", state, flaw)
    raise UsageError(f"There is no saved state in {run}.", _BEGIN)


def _flaw(state: Path) -> str | None:
    """What is missing of a state; a file that was cut short lacks what stands at its end, and no values are read."""
    for needed in (("*model*", "global_step*"), ("optimizer*", "global_step*"), (_WRITTEN_LAST,)):  # or DeepSpeed's
        if not any(found for name in needed for found in state.glob(name)):
            return f"it has no {needed[0]}"
    try:
        for path in sorted(state.iterdir()):
            if path.suffix in (".pt", ".pth") and not zipfile.is_zipfile(path):
                return f"{path.name} is torn"
            if path.suffix == ".safetensors":
                with safe_open(path, framework="pt"):
                    pass
            if path.name == _WRITTEN_LAST:
                json.loads(path.read_text(encoding="utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        return f"{path.name} cannot be read ({error})"
    return None
