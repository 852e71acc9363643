"""`sfvqa cache`: the videos that are kept as the model saw them: which, where, how large, and deleting them."""

import json as jsonlib
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from sfvqa.cli.models.shared import Yes, confirm
from sfvqa.cli.option_groups import compose
from sfvqa.cli.options import ResultOptions
from sfvqa.cli.terminal import echo, printable_line
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.entry import EntryFacts
    from sfvqa.inference.video_cache.store import StoredEntry


CLEAR_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache clear
  sfvqa cache clear --yes --json

Delete every encoded video that is kept, and what an interrupted run left. The
videos themselves are not touched: they are read and encoded again when asked
about."""


def clear(yes: Yes = False, *, result: ResultOptions) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.inference.video_cache.store import VideoCache

    notices, store = result.notices(), VideoCache()
    num_videos, size_bytes = store.num_entries(), store.size_bytes()
    what = f"Clearing deletes {plural(num_videos, 'encoded video')} ({readable_size(size_bytes)}) in {store.folder}."
    notices.note(what if size_bytes else f"There is nothing in {store.folder}.")
    if size_bytes and not confirm(f"Delete {readable_size(size_bytes)}?", what, yes=yes):
        notices.note("Nothing was deleted.")
        raise typer.Exit(1)
    freed_bytes = store.clear()
    if size_bytes:
        notices.note(f"{readable_size(freed_bytes)} are free again.")
    if result.json:
        document = {"schema_version": 1, "folder": str(store.folder.absolute()), "freed_bytes": freed_bytes}
        typer.echo(jsonlib.dumps(document))


LIST_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache list --json | jq '.videos[].video'

List the encoded videos that are kept, the last used first: where each lay when
it was seen, how many frames of it, and by which model. Damaged ones are marked
as far as their headers tell; the rest is checked whenever one is used."""

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


def list_entries(*, result: ResultOptions) -> None:
    """Print some lines or an object a video."""
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    entries = store.entries()
    if result.json:
        folder = str(store.folder.absolute())
        videos = [_facts(entry) for entry in entries]
        typer.echo(jsonlib.dumps({"schema_version": 1, "folder": folder, "videos": videos}))
    elif entries:
        now = time.time()
        echo("\n\n".join(_paragraph(entry, now) for entry in entries))
    else:
        echo(f"No encoded video is kept in {printable_line(str(store.folder))}.")


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

    kept = [readable_size(entry.size_bytes), f"last used {_ago(now - entry.last_used_seconds)}"]
    if entry.facts is None:
        lines = [f"{entry.path}  ({', '.join(kept)})", f"  Damaged: {entry.fault}. It is of no use."]
    else:
        frames = plural(len(entry.facts.indices), "frame")
        lines = [f"{entry.facts.video.path}  ({', '.join([frames, *kept])})", f"  {_made_with(entry.facts)}"]
    return "\n".join(map(printable_line, lines))


def _made_with(facts: "EntryFacts") -> str:
    key = facts.key
    how = f"{facts.strategy} sampling, crop {facts.crop}, reader {facts.reader}"
    weights = re.sub(r"([0-9a-f]{12})[0-9a-f]+", r"\1", key["checkpoint"])  # as much as tells them apart for a person
    return f"Seen by {weights} in {key['dtype']} on {key['device_kind']}: {how}"


def _ago(seconds: float) -> str:
    """How long ago, in its largest unit: nobody compares these to the second."""

    for unit, length in _UNITS:
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "just now"


PATH_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache path
  ls "$(sfvqa cache path)"

Print the folder that encoded videos are kept in, and nothing else. It need not
be there yet. SFVQA_CACHE_DIR names the folder above it."""


def path(*, result: ResultOptions) -> None:
    """Print the folder."""
    from sfvqa.inference.video_cache.store import video_cache_folder

    folder = str(video_cache_folder().absolute())
    typer.echo(jsonlib.dumps({"schema_version": 1, "folder": folder}) if result.json else folder)


SIZE_HELP = """\b
[bold]Examples[/bold]
  sfvqa cache size
  sfvqa cache size --json | jq .size_bytes

Say how many encoded videos are kept, and what they take on the disk."""


def size(*, result: ResultOptions) -> None:
    """Print it in words, or as an object."""
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    num_videos, size_bytes, folder = store.num_entries(), store.size_bytes(), str(store.folder.absolute())
    if result.json:
        document = {"schema_version": 1, "folder": folder, "num_videos": num_videos, "size_bytes": size_bytes}
        typer.echo(jsonlib.dumps(document))
    else:
        echo(f"{readable_size(size_bytes)} ({plural(num_videos, 'video')}) in {printable_line(folder)}")


HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache size
  sfvqa cache clear

Videos are kept as the model saw them, so that another question about one
waits for no reading and no encoding. The least recently used go when there
are too many. SFVQA_CACHE_DIR names the folder they are kept in."""

app = typer.Typer(help=HELP, no_args_is_help=True)
app.command("list", help=LIST_HELP, short_help="List the videos that are kept.")(compose(list_entries))
app.command("size", help=SIZE_HELP, short_help="Say what they take on the disk.")(compose(size))
app.command("clear", help=CLEAR_HELP, short_help="Delete them.")(compose(clear))
app.command("path", help=PATH_HELP, short_help="Print the folder they are in.")(compose(path))
