"""Which files of a folder are pictures, and in which order; opens none of them."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

IMAGE_SUFFIXES = frozenset(
    (
        ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
    )
)  # fmt: skip
_OTHER_PICTURES = frozenset(
    (
        ".arw", ".cr2", ".cr3", ".crw", ".dcm", ".dds", ".djvu", ".dng", ".eps", ".exr", ".fits", ".hdr",
        ".icns", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".mrw", ".nef", ".nrw", ".orf", ".pbm", ".pcx",
        ".pef", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".raf", ".rw2", ".sgi", ".sr2", ".srw", ".svg", ".tga",
        ".wmf", ".x3f", ".xcf",
    )
)  # fmt: skip
_FILES_NAMED = 4

_NUMBER = re.compile(r"(\d+)", re.ASCII)


def pictures_in(folder: Path) -> list[Path]:
    """The files with the suffix of a picture, in natural order; hidden files and folders within are left out.

    Raises OSError if the folder cannot be listed.
    """
    return _files_in(folder, IMAGE_SUFFIXES)


def other_pictures_in(folder: Path) -> list[Path]:
    """The pictures that `pictures_in` leaves out, because nothing here reads their format."""
    return _files_in(folder, _OTHER_PICTURES)


def names_of(files: Sequence[Path]) -> str:
    """The names of the first few, for a sentence."""
    return ", ".join(file.name for file in files[:_FILES_NAMED]) + (", …" if len(files) > _FILES_NAMED else "")


def _files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    named = [file for file in folder.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    return sorted((file for file in named if file.is_file()), key=lambda file: natural_order(file.name))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by: letters without regard to case, a run of digits by its value, equals by the plain name.

    >>> sorted(["frame10.png", "frame2.png", "Frame1.png"], key=natural_order)
    ['Frame1.png', 'frame2.png', 'frame10.png']
    """
    parts = _NUMBER.split(name.casefold())  # every second part is a number, so that like is compared with like
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
