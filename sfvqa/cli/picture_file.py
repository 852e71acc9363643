"""Writes a picture that a command was asked for: checked before the work, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.whole_file import check_place, whole_file
from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_picture_path(path: Path, *, keep: Path) -> None:
    """Fail now if a picture cannot be written there, or would take the place of `keep`.

    UsageError for an unknown suffix or a path that is no place for a file, SfvqaError for a folder without permission.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"“{path}” does not say what kind of picture it is.", f"End it in {', '.join(_FORMATS)}.")
    check_place(path, keep=[keep])


def write_picture(picture: "Image", path: Path) -> None:
    """Write it; SfvqaError if that fails."""
    with whole_file(path, what="picture") as file:
        picture.save(file, _FORMATS[path.suffix.lower()])
