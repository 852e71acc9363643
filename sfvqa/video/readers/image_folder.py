"""Which files of a folder are pictures, and in which order; opens none of them."""

import re
from pathlib import Path

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"))

_NUMBER = re.compile(r"(\d+)", re.ASCII)


def pictures_in(folder: Path) -> list[Path]:
    """The files with the suffix of a picture, in natural order; hidden files and folders within are left out.

    Raises OSError if the folder cannot be listed.
    """
    named = [
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    return sorted((file for file in named if file.is_file()), key=lambda file: natural_order(file.name))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by: letters without regard to case, a run of digits by its value, equals by the plain name.

    >>> sorted(["frame10.png", "frame2.png", "Frame1.png"], key=natural_order)
    ['Frame1.png', 'frame2.png', 'frame10.png']
    """
    parts = _NUMBER.split(name.casefold())  # every second part is a number, so that like is compared with like
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name
