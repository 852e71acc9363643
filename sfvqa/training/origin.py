"""Where a checkpoint or an adapter comes from: the runs that it lies in, and what it was merged or converted from."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfvqa.checkpoints.adapter import Adapter, is_adapter
from sfvqa.checkpoints.find import find, locate
from sfvqa.errors import ModelError
from sfvqa.model.config import read_json
from sfvqa.registry import ModelSpec
from sfvqa.training.run_folder import SETTINGS_FILE
from sfvqa.training.validation import Figures, read_figures

ORIGIN_FILE = "origin.json"
"""In a folder that was not made by a run: the `model` it was made of, and the `adapter` or `vision` tower, if any."""


@dataclass(frozen=True)
class Run:
    """The settings of a run, and what it measured."""

    settings: Mapping[str, Any]
    figures: Mapping[str, Figures]

    @classmethod
    def of(cls, made: Path) -> "Run | None":
        """The run that wrote a folder, which lies in the run's own. Raises CheckpointError."""
        folder = made.absolute().parent
        if not (folder / SETTINGS_FILE).is_file():
            return None
        return cls(read_json(folder / SETTINGS_FILE), read_figures(folder))


@dataclass(frozen=True)
class Origin:
    """The model that all began with, the one that the last training began with, and each run, oldest first.

    `vision` is whose vision tower a decoder got.
    """

    first: ModelSpec | Path
    trained_on: ModelSpec | Path
    runs: tuple[Run, ...]
    vision: str | None = None

    @classmethod
    def of(cls, folder: Path) -> "Origin":
        """Read it from what lies in the folder and beside it, and so on. Raises CheckpointError."""
        first: ModelSpec | Path = folder
        trained_on: ModelSpec | Path | None = None
        runs: list[Run] = []
        vision: str | None = None
        known: set[Path] = set()
        while isinstance(first, Path) and (made := first.absolute()) not in known:  # names may have been used again
            known.add(made)
            if (origin := first / ORIGIN_FILE).is_file():
                made_of = read_json(origin)
                adapter = Path(str(made_of.get("adapter")))
                run, name = Run.of(adapter) if "adapter" in made_of else None, str(made_of.get("model"))
                vision = vision or made_of.get("vision")
            elif run := Run.of(first):
                name = str(run.settings.get("model"))
            elif is_adapter(first) and (base := Adapter.of(first).base):
                name = base
            else:
                break
            first = Path(name)
            with suppress(ModelError):  # it may have gone since
                first = find(name)
            if run is not None:
                runs.insert(0, run)
            if run is not None or is_adapter(made):
                trained_on = trained_on or first
        return cls(first, trained_on or first, tuple(runs), vision)


def write_origin(
    folder: Path, model: str | Path, adapter: str | Path | None = None, vision: str | Path | None = None
) -> None:
    """Note in a new folder what it was made of."""
    made_of = {part: _named(made) for part, made in (("model", model), ("vision", vision)) if made is not None}
    made_of |= {} if adapter is None else {"adapter": str(Path(adapter).expanduser().absolute())}
    (folder / ORIGIN_FILE).write_text(json.dumps(made_of, indent=2) + "\n", encoding="utf-8")


def _named(model: str | Path) -> str:
    return str(model) if locate(model).spec else str(Path(model).expanduser().absolute())
