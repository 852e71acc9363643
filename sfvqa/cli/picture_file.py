"""Writes a picture that a command was asked for: checked before the work, whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import SfvqaError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_picture_path(path: Path, *, keep: Path) -> None:
    """Fail now if a picture cannot be written there, or would take the place of `keep`.

    UsageError for an unknown suffix or a path that is no place for a file, SfvqaError for a folder without permission.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"“{path}” does not say what kind of picture it is.", f"End it in {', '.join(_FORMATS)}.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} to write {path.name} to.", "Create it, or name another.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file.")
    if path.exists() and keep.exists() and path.samefile(keep):
        raise UsageError(f"{path} is the very file that is read.", "Name another file to write to.")
    if not os.access(folder, os.W_OK):
        raise SfvqaError(f"The folder {folder} cannot be written to.", "Name another, or change its permissions.")


def write_picture(picture: "Image", path: Path) -> None:
    """Write to a file beside it first, so that there is never half a picture; SfvqaError if that fails."""
    target = path.resolve()  # a link stays a link
    partial = target.with_name(f".sfvqa-{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            picture.save(file, _FORMATS[path.suffix.lower()])
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SfvqaError(f"The picture {path} cannot be written: {reason}.", "Name another file.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
