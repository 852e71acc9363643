"""What commands share beside frames, answers and the model: the video, what is printed, the video cache, and checks."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.option_groups import RARE, SETTING, OptionGroup
from sfvqa.errors import UnreadableVideoError, UsageError

if TYPE_CHECKING:
    from sfvqa.cli.notices import Notices
    from sfvqa.inference.video_cache.store import VideoCache


def check_finite(value: float) -> float:
    """A callback of options that take a finite number."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number.")
    return value


def check_positive(value: float | None) -> float | None:
    """A callback of options that take a finite number above 0, or nothing."""
    if value is not None and check_finite(value) <= 0:
        raise typer.BadParameter(f"{value} is not above 0.")
    return value


@dataclass(frozen=True)
class Count:
    """A whole number above 0; None is `auto`."""

    number: int | None

    def __str__(self) -> str:
        return "auto" if self.number is None else f"{self.number}"


ONE, AUTO = Count(1), Count(None)


def parse_count(text: str) -> Count:
    """The count that `text` means; typer.BadParameter where it means none."""
    if text == "auto":
        return AUTO
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise typer.BadParameter(f"{text!r} is neither a whole number above 0 nor auto.")
    return Count(int(text))


def parse_video(text: str) -> Path:
    """The path of a video, or of the bundled one of that name where no file has it.

    Raises typer.BadParameter for an empty path, UnreadableVideoError for a URL.
    """
    from sfvqa.cli.demo import bundled_video
    from sfvqa.video.readers.local_file import refuse_address

    if not text:  # an unset variable, most likely; a Path would make it the current folder
        raise typer.BadParameter("the path is empty.")
    refuse_address(text)  # a Path would make one slash of two
    return bundled_video(text) or Path(text)


def parse_file(text: str) -> Path:
    """The path of any other file, to read or to write; typer.BadParameter for an empty one, UsageError for a URL."""
    from sfvqa.video.readers.local_file import refuse_address

    if not text:
        raise typer.BadParameter("the path is empty.")
    try:
        refuse_address(text)
    except UnreadableVideoError:
        raise UsageError(f"“{text}” is an address, not a local file.", "Download it first, or name a file.") from None
    return Path(text)


Video = Annotated[
    Path,
    typer.Argument(
        parser=parse_video,
        metavar="VIDEO",
        help="A video file, a folder of pictures, or - for standard input.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Only say what would run, with how much memory, and whether it fits (exit code 5 if not).",
        rich_help_panel="What it prints",
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on stdout, for errors too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Print nothing but the result and warnings.")]


@dataclass(frozen=True, kw_only=True)
class ResultOptions(OptionGroup):
    """As what the result is printed, and whether anything else is."""

    panel = "What it prints"

    json: Json = False
    quiet: Quiet = False

    def notices(self) -> "Notices":
        """What prints on stderr."""
        from sfvqa.cli.notices import Notices

        return Notices(quiet=self.quiet)


@dataclass(frozen=True, kw_only=True)
class OutputOptions(ResultOptions):
    """The same of commands that have more to tell. UsageError when built for what contradicts itself."""

    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print what was chosen and read, and how long it took.")
    ] = False

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other.", "Leave one of them out.")

    def notices(self) -> "Notices":
        """What prints on stderr."""
        from sfvqa.cli.notices import Notices

        return Notices(quiet=self.quiet, verbose=self.verbose)


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


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


@dataclass(frozen=True, kw_only=True)
class CacheOptions(OptionGroup):
    """The video cache: whether to use it, and how."""

    panel = "The video cache"

    no_cache: Annotated[
        bool, typer.Option(help="Neither take the encoded video from the video cache nor keep it there."), SETTING
    ] = False
    cache_size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            callback=_check_size,
            help="The most the cache may take on the disk; the least recently used videos go first.",
        ),
        SETTING,
        RARE,
    ] = "10GB"
    full_hash: Annotated[
        bool,
        typer.Option(
            help="Recognise a video by every byte of it; without this, one above 32 MiB by its size, samples and the "
            "time of its last change."
        ),
        SETTING,
        RARE,
    ] = False

    def open(self, video: Path | None = None) -> "VideoCache | None":
        """The cache for a command about one `video`, or about many; None for none."""
        from sfvqa.inference.video_cache.store import VideoCache
        from sfvqa.video.readers.local_file import STANDARD_INPUT

        if self.no_cache:
            return None
        is_fresh = str(video) == STANDARD_INPUT  # a copy of it, whose time of change says nothing
        return VideoCache(limit_bytes=parse_size(self.cache_size), whole_files=self.full_hash or is_fresh)
