"""The folders quantized copies are kept in: their names, who may write to them, how they go. Imports no torch."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sfvqa.errors import CheckpointError, ModelError
from sfvqa.registry import ModelSpec, QuantizationName

KEPT_KINDS = (QuantizationName.EIGHT_BIT, QuantizationName.FOUR_BIT)
"""The quantizations a copy may be in, best first."""


@dataclass(frozen=True)
class CopyRemains:
    """What there is of one copy, whole or not: its folder, and what was left of making or removing it."""

    model: str
    quantization: QuantizationName
    folders: tuple[Path, ...]
    size_bytes: int


def copies_folder() -> Path:
    """Where copies are kept: below SFVQA_DATA_DIR, else the user's data folder."""
    import platformdirs

    return Path(os.environ.get("SFVQA_DATA_DIR") or platformdirs.user_data_dir("sfvqa", appauthor=False)) / "quantized"


def copy_folder(model: str, quantization: str) -> Path:
    """Where the copy of a registered model in one quantization is, or would be."""
    return copies_folder() / f"{quote(model, safe='')}-{quantization}"


@contextlib.contextmanager
def alone_with(model: str, quantization: str) -> Iterator[Path]:
    """Keep other processes from a copy, and give an empty folder beside it that goes afterwards with all it holds.

    What a killed process left in that folder goes first: the lock it held ended with it. Raises ModelError when
    another process is at it or nothing may be written there, OSError when what is left over may not be deleted.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]  # public, but not marked so

    lock = copies_folder().parent / "locks" / f"{copy_folder(model, quantization).name}.lock"
    partial = _partial_folder(model, quantization)
    with contextlib.ExitStack() as stack:
        try:
            for folder in (lock.parent, partial.parent):
                folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(lock, timeout=0.2))
            if partial.exists():
                shutil.rmtree(partial)
            partial.mkdir()
        except TimeoutError as error:
            raise ModelError(
                f"Another process is making or removing the {quantization} copy of {model}.",
                "Wait until it is done, or end it.",
            ) from error
        except OSError as error:
            raise ModelError(
                f"{error.filename or copies_folder()} cannot be written: {error.strerror or error}.",
                "Make it writable, or set SFVQA_DATA_DIR to a folder that is.",
            ) from error
        try:
            yield partial
        finally:
            shutil.rmtree(partial)


def remains_of(spec: ModelSpec) -> list[CopyRemains]:
    """What there is of the copies of a model, found by the names of folders alone: nothing in them need be whole."""
    found = []
    for kind in KEPT_KINDS:
        both = (copy_folder(spec.name, kind), _partial_folder(spec.name, kind))
        if folders := tuple(folder for folder in both if folder.exists()):
            files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
            found.append(CopyRemains(spec.name, kind, folders, sum(path.stat().st_size for path in files)))
    return found


def remove_remains(remains: CopyRemains) -> None:
    """Delete them; an interruption leaves no half of a copy under its name. CheckpointError when it is not allowed."""
    folder = copy_folder(remains.model, remains.quantization)
    try:
        with alone_with(remains.model, remains.quantization) as partial:
            if folder.exists():
                folder.rename(partial / folder.name)
    except OSError as error:
        raise CheckpointError(
            f"{folder} could not be removed entirely: {error.strerror or error}.", "See whose files it holds."
        ) from error


def _partial_folder(model: str, quantization: str) -> Path:
    """Where a copy is until it is whole, and where it goes first when it goes."""
    folder = copy_folder(model, quantization)
    return folder.with_name(f".partial-{folder.name}")
