"""Writes a file that a command was asked for: its place is checked before the work, it comes whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sfvqa.errors import SfvqaError, UsageError


def check_place(path: Path) -> None:
    """UsageError if the path is no place for a file, SfvqaError for a folder without permission; makes no folder."""
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} to write {path.name} to.", "Create it, or name another.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file.")
    if not os.access(folder, os.W_OK):
        raise SfvqaError(f"The folder {folder} cannot be written to.", "Name another, or change its permissions.")


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, what: str) -> None:
    """Write to a file beside it first, so that there is never half of it; SfvqaError, naming `what`, if that fails."""
    target = path.resolve()  # a link stays a link
    partial = target.with_name(f".sfvqa-{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            write(file)
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SfvqaError(f"The {what} {path} cannot be written: {reason}.", "Name another file.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
