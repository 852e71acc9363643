"""`sfvqa cache list`: which encoded videos are kept, and what of."""

import json as jsonlib
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from sfvqa.cli.models.options import Json, Quiet

if TYPE_CHECKING:
    from sfvqa.inference.video_cache.entry import EntryFacts
    from sfvqa.inference.video_cache.store import StoredEntry

HELP = """\b
[bold]Examples[/bold]
  sfvqa cache list
  sfvqa cache list --json | jq '.videos[].video'

List the encoded videos that are kept, the last used first: where each lay when
it was seen, how many frames of it, and by which model. Damaged ones are marked
as far as their headers tell; the rest is checked whenever one is used."""

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


def list_entries(
    json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001  it says nothing else anyway
) -> None:
    """Print some lines or an object a video."""
    from sfvqa.cli.screen import echo
    from sfvqa.cli.text import printable_line
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    entries = store.entries()
    if json:
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
    from sfvqa.cli.text import plural, printable_line, readable_size

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
    from sfvqa.cli.text import plural

    for unit, length in _UNITS:
        if seconds >= length:
            return f"{plural(int(seconds // length), unit)} ago"
    return "just now"
