"""The disk of the Hugging Face cache: where that is, and whether there is room on it."""

import shutil
from pathlib import Path

from sfvqa.errors import DownloadError
from sfvqa.wording import readable_size

ANOTHER_PLACE = "Make room there, or set HF_HOME to a folder on another disk."
WRITABLE_PLACE = "Make it writable, or set HF_HOME to a folder that is."


def cache_folder() -> Path:
    """The cache, HF_HOME's or HF_HUB_CACHE's; it need not exist."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def check_room(needed_bytes: int) -> None:
    """Raise DownloadError when the disk of the cache has fewer free bytes."""
    folder = cache_folder()
    free = free_bytes()
    if needed_bytes > free:
        raise DownloadError(
            f"{readable_size(needed_bytes)} are still to be fetched, and the disk of {folder} has "
            f"{readable_size(free)} free.",
            ANOTHER_PLACE,
        )


def free_bytes() -> int:
    """Free bytes on the disk the cache is on, or would be."""
    folder = cache_folder().absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return shutil.disk_usage(existing).free
