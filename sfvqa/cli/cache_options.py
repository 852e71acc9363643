"""The options of the video cache, and the cache that they mean."""

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.store import VideoCache

_CACHE = "What is kept"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
DEFAULT_SIZE = "10GB"


def parse_size(text: str) -> int:
    """Bytes of `10GB`, `1.5 G`, `500 MB`, or a plain number of them; typer.BadParameter for anything else.

    >>> parse_size("1.5GB"), parse_size("0")
    (1500000000, 0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size; write it like 10GB, 500MB or 0.")
    return int(Decimal(found[1]) * _UNITS[found[2]])


def _check_size(text: str) -> str:
    parse_size(text)
    return text


NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        metavar="",
        envvar="SFVQA_NO_CACHE",
        help="Neither take the encoded video from the video cache nor keep it there.",
        rich_help_panel=_CACHE,
    ),
]
CacheSize = Annotated[
    str,
    typer.Option(
        metavar="SIZE",
        envvar="SFVQA_CACHE_SIZE",
        callback=_check_size,
        help="The most the video cache may take on the disk; what was not used for longest goes first.",
        rich_help_panel=_CACHE,
    ),
]
FullHash = Annotated[
    bool,
    typer.Option(
        "--full-hash",
        metavar="",
        envvar="SFVQA_FULL_HASH",
        help="Recognise a video by every byte of it; without this, one above 32 MiB by its size, samples, and the time "
        "of its last change.",
        rich_help_panel=_CACHE,
    ),
]


def video_cache(context: typer.Context) -> "VideoCache | None":
    """The cache that the options of a command mean, None for none."""
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.video.readers.standard_input import STANDARD_INPUT

    given = context.params
    if given["no_cache"]:
        return None
    is_fresh = str(given.get("video")) == STANDARD_INPUT  # a copy of it, whose time of change says nothing
    return VideoCache(limit_bytes=parse_size(given["cache_size"]), whole_files=given["full_hash"] or is_fresh)
