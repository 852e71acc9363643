"""`sfvqa cache`: list, measure, locate and delete the encoded videos that are kept."""

import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from sfvqa.cli.options import ResultOptions, Yes, compose
from sfvqa.cli.screen import agree_to_delete, echo, print_json, printable_line
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.store import StoredEntry


LIST_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache list --json | jq ".videos[].video"

List the encoded videos, most recently used first: the path that each video had,
how many frames were encoded, and by which model. An entry is marked as
damaged if its header shows it; the rest of an entry is checked when it is
used."""

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


def list_entries(*, result: ResultOptions) -> None:
    """Print some lines or an object a video."""
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    entries = store.entries()
    if result.json:
        print_json({"folder": str(store.folder.absolute()), "videos": [_facts(entry) for entry in entries]})
    elif entries:
        now = time.time()
        echo("\n\n".join(_paragraph(entry, now) for entry in entries))
    else:
        echo(f"No encoded videos in {printable_line(str(store.folder))}.")


def _facts(entry: "StoredEntry") -> dict[str, Any]:
    """Of a damaged one, what can be said without its header."""
    facts = entry.facts
    return {
        "file": str(entry.path.absolute()),
        "size_bytes": entry.size_bytes,
        "last_used": datetime.fromtimestamp(entry.last_used_seconds, UTC).isoformat(timespec="seconds"),
        "damaged": entry.fault,
        "video": None if facts is None else str(facts.video.path),
        "num_frames": None if facts is None else len(facts.indices),
        "made_with": None if facts is None else facts.key,
    }


def _paragraph(entry: "StoredEntry", now: float) -> str:
    """A video in a few lines: readable in any width, and greppable by its path."""
    age, facts = now - entry.last_used_seconds, entry.facts
    used = next((f"{plural(int(age // length), unit)} ago" for unit, length in _UNITS if age >= length), "just now")
    kept = f"{readable_size(entry.size_bytes)}, last used {used}"
    if facts is None:
        lines = [f"{entry.path}  ({kept})", f"  Damaged: {entry.fault}. It cannot be used."]
    else:
        key = facts.key
        weights = re.sub(r"([0-9a-f]{12})[0-9a-f]+", r"\1", key["checkpoint"])  # enough to tell them apart
        lines = [
            f"{facts.video.path}  ({plural(len(facts.indices), 'frame')}, {kept})",
            f"  Encoded by {weights} in {key['dtype']} on {key['device_kind']}: {facts.strategy} sampling, "
            f"crop {facts.crop}, reader {facts.reader}",
        ]
    return "\n".join(map(printable_line, lines))


SIZE_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache size
  sfvqa cache size --json | jq .size_bytes

Print the number of encoded videos and their size on disk."""


def size(*, result: ResultOptions) -> None:
    """Print it in words, or as an object."""
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    num_videos, size_bytes, folder = store.num_entries(), store.size_bytes(), str(store.folder.absolute())
    if result.json:
        print_json({"folder": folder, "num_videos": num_videos, "size_bytes": size_bytes})
    else:
        echo(f"{readable_size(size_bytes)} ({plural(num_videos, 'video')}) in {printable_line(folder)}")


CLEAR_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache clear
  sfvqa cache clear --yes --json

Delete all encoded videos, and what interrupted runs left behind. The video
files are kept; they are read and encoded again when you next ask about them."""


def clear(yes: Yes = False, *, result: ResultOptions) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.inference.video_cache.store import VideoCache

    notices, store = result.notices(), VideoCache()
    num_videos, size_bytes = store.num_entries(), store.size_bytes()
    what = f"Clearing deletes {plural(num_videos, 'encoded video')} ({readable_size(size_bytes)}) in {store.folder}."
    if size_bytes:
        agree_to_delete(readable_size(size_bytes), what, notices, yes=yes)
    else:
        notices.note(f"There is nothing in {store.folder}.")
    freed_bytes = store.clear()
    if size_bytes:
        notices.note(f"{readable_size(freed_bytes)} freed.")
    if result.json:
        print_json({"folder": str(store.folder.absolute()), "freed_bytes": freed_bytes})


PATH_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache path
  ls "$(sfvqa cache path)"

Print the folder of encoded videos. It may not exist yet. SFVQA_CACHE_DIR
names the folder above it."""


def path(*, result: ResultOptions) -> None:
    """Print the folder, and nothing else."""
    from sfvqa.inference.video_cache.store import video_cache_folder

    folder = str(video_cache_folder().absolute())
    if result.json:
        print_json({"folder": folder})
    else:
        typer.echo(folder)


HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache size
  sfvqa cache clear

Manage the video cache. It keeps encoded videos, so that further questions
about a video need no reading and no encoding; above a size limit the least
recently used are deleted. The videos are in SFVQA_CACHE_DIR/videos if that
variable is set, else in your cache folder."""

app = typer.Typer(help=HELP, no_args_is_help=True)
app.command("list", help=LIST_HELP, short_help="List the encoded videos.")(compose(list_entries))
app.command("size", help=SIZE_HELP, short_help="Print the number of encoded videos and their size.")(compose(size))
app.command("clear", help=CLEAR_HELP, short_help="Delete all encoded videos.")(compose(clear))
app.command("path", help=PATH_HELP, short_help="Print the folder of encoded videos.")(compose(path))
