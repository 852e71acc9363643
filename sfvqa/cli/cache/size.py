"""`sfvqa cache size`: what the encoded videos take on the disk."""

import json as jsonlib

import typer

from sfvqa.cli.models.options import Json, Quiet

HELP = """\b
[bold]Examples[/bold]
  sfvqa cache size
  sfvqa cache size --json | jq .size_bytes

Say how many encoded videos are kept, and what they take on the disk."""


def size(
    json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001  it says nothing else anyway
) -> None:
    """Print it in words, or as an object."""
    from sfvqa.cli.screen import echo
    from sfvqa.cli.text import plural, printable_line, readable_size
    from sfvqa.inference.video_cache.store import VideoCache

    store = VideoCache()
    num_videos, size_bytes, folder = store.num_entries(), store.size_bytes(), str(store.folder.absolute())
    if json:
        document = {"schema_version": 1, "folder": folder, "num_videos": num_videos, "size_bytes": size_bytes}
        typer.echo(jsonlib.dumps(document))
    else:
        echo(f"{readable_size(size_bytes)} ({plural(num_videos, 'video')}) in {printable_line(folder)}")
