"""The folder of a fine-tuning run: what the run is, written beside the states that Trainer saves, to go on only so."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from sfvqa.errors import UsageError
from sfvqa.training.processes import is_first_process

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

SETTINGS_FILE = "settings.json"
_STATE = re.compile(r"checkpoint-(\d+)")  # Trainer's name for what it saves at a step
_WRITTEN_LAST = "trainer_state.json"


def check_new_run(run: Path) -> None:
    """Raise UsageError unless a run can begin in a folder: one that can be written to, and holds nothing.

    Settings alone are nothing: a run that failed before it saved a state can be started again.
    """
    if not is_first_process():
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        held = [entry.name for entry in run.iterdir() if entry.name != SETTINGS_FILE]
        with tempfile.TemporaryFile(dir=run):
            pass
    except OSError as error:
        raise UsageError(f"{run} cannot be written to: {error.strerror or error}.", "Name another folder.") from error
    if held:
        raise UsageError(f"{run} is not empty.", "Name another folder, or go on with --resume.")


def write_settings(run: Path, settings: dict[str, Any]) -> None:
    """Write down what a run is, once it is about to train."""
    if is_first_process():
        (run / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_settings(run: Path) -> dict[str, Any]:
    """What was written down of the run in a folder; UsageError where nothing was that can be read."""
    path = run / SETTINGS_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"There is no saved state in {run}.", _BEGIN) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read: {error}.", _BEGIN) from error
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no settings of a run.", _BEGIN)
    return settings


def check_settings(run: Path, before: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise UsageError, naming every difference, unless the run in a folder has these settings."""
    now = json.loads(json.dumps(settings))
    if changed := [name for name in now if before.get(name) != now[name]]:
        said = ", ".join(f"{name} {before.get(name)!r} (now {now[name]!r})" for name in changed)
        raise UsageError(f"The run in {run} has {said}.", "Give the same settings, or begin another run.")


def last_state(run: Path) -> Path:
    """The last folder `checkpoint-N` of which every file is whole; UsageError when there is none."""
    found = {int(match[1]): path for path in run.glob("*") if (match := _STATE.fullmatch(path.name))}
    for _, state in sorted(found.items(), reverse=True):
        if (flaw := _flaw(state)) is None:
            return state
        logger.warning("%s is not gone on from: %s, as when a run ends while it writes.", state, flaw)
    raise UsageError(f"There is no saved state in {run}.", _BEGIN)


def _flaw(state: Path) -> str | None:
    """What is missing of a state; a file that was cut short lacks what stands at its end, and no values are read."""
    for needed in ("*model*", "optimizer*", _WRITTEN_LAST):
        if not any(state.glob(needed)):
            return f"it has no {needed}"
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


_BEGIN = "Leave out --resume, and name a folder that is empty or does not exist, to begin."
