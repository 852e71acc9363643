"""Writes a file that a command was asked for: its place is checked before the work, it comes whole or not at all."""

import contextlib
import io
import os
import re
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from sfvqa.errors import SfvqaError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_PARTIAL_NAME = re.compile(r"\.sfvqa-[0-9a-f]{16}\.part")
_LEFT_SECONDS = 3600  # one that was not changed for so long, and is not locked, nobody is writing


def check_place(path: Path, *, keep: Sequence[Path] = ()) -> None:
    """Fail now if no file can be written there, or if it would take the place of one of `keep`; makes no folder.

    UsageError for a path that is no place for a file, SfvqaError for a folder without permission.
    """
    if "\0" in str(path):
        raise UsageError(f"{path} contains a null character.", "Name another file.")
    folder = Path(os.path.realpath(path)).parent  # Path.resolve raises for links that lead in a circle
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder} to write {path.name} to.", "Create it, or name another folder.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder.", "Name a file.")
    if path.exists() and not path.is_file():  # a file would take the place of /dev/null itself
        raise UsageError(f"{path} is a pipe or a device, not a file.", "Name a file.")
    if any(path.exists() and kept.exists() and path.samefile(kept) for kept in keep):
        raise UsageError(f"{path} is also an input file.", "Name another file to write to.")
    if not os.access(folder, os.W_OK):
        raise SfvqaError(f"The folder {folder} cannot be written to.", "Name another, or change its permissions.")


def check_folder(folder: Path) -> None:
    """Fail now if `make_folder` could not make it, or nothing can be written there: UsageError, SfvqaError."""
    if "\0" in str(folder):
        raise UsageError(f"{folder} contains a null character.", "Name another folder.")
    there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise UsageError(f"{there} is not a folder.", "Name another.")
    if not os.access(there, os.W_OK):
        raise SfvqaError(f"The folder {there} cannot be written to.", "Name another, or change its permissions.")


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it is in, where they are not there. SfvqaError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SfvqaError(f"The folder {folder} cannot be made: {error.strerror or error}.", "Name another.") from error


@contextlib.contextmanager
def whole_file(path: Path, *, what: str = "file") -> Iterator[BinaryIO]:
    """A file to write, beside `path`, that takes its place when the block ends well.

    What was left there by processes that were killed goes. SfvqaError, naming `what`, if it cannot be written.
    """
    from filelock import lock_descriptor

    target = Path(os.path.realpath(path))  # a link stays a link
    partial = target.with_name(f".sfvqa-{secrets.token_hex(8)}.part")
    _remove_left(target.parent)
    try:
        with partial.open("xb") as file:
            with contextlib.suppress(OSError):  # of a file system without locks
                lock_descriptor(file.fileno(), blocking=False)
            yield file
        partial.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SfvqaError(f"The {what} {path} cannot be written: {reason}.", "Name another file.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@cache  # once a run: a folder of captions may hold many files
def _remove_left(folder: Path) -> None:
    """Remove what killed processes left: nobody has it locked, and it is old, as others may write over a network."""
    from filelock import lock_descriptor

    with contextlib.suppress(OSError):
        for path in [path for path in folder.iterdir() if _PARTIAL_NAME.fullmatch(path.name) and path.is_file()]:
            with contextlib.suppress(OSError):
                with path.open("rb") as file:
                    is_old = time.time() - os.fstat(file.fileno()).st_mtime > _LEFT_SECONDS
                    is_left = is_old and lock_descriptor(file.fileno(), blocking=False)
                if is_left:  # closed by now: Windows removes no file that is open
                    path.unlink()


@contextlib.contextmanager
def whole_text_file(path: Path) -> Iterator[TextIO]:
    """The same for UTF-8 text, newlines as they are; what is no Unicode text (bytes of a file name) is spelt out."""
    with (
        whole_file(path) as file,
        io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="") as text,
    ):
        yield text


_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def check_picture_suffix(path: Path, formats: Collection[str] = tuple(_FORMATS)) -> None:
    """UsageError for a suffix that names none of the formats."""
    if path.suffix.lower() not in formats:
        raise UsageError(f"“{path}” has no ending that names a picture format.", f"End it in {' or '.join(formats)}.")


def check_picture_path(path: Path, *, keep: Path) -> None:
    """Fail now if a picture cannot be written there, or would take the place of `keep`: UsageError, SfvqaError."""
    check_picture_suffix(path)
    check_place(path, keep=[keep])


def write_picture(picture: "Image", path: Path) -> None:
    """Write it; SfvqaError if that fails."""
    with whole_file(path, what="picture") as file:
        picture.save(file, _FORMATS[path.suffix.lower()])
