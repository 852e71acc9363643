"""Writes a picture that a command was asked for: checked before the work, whole or not at all."""

import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.output_file import check_output_path
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
    check_output_path(path, keep=[keep])


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
