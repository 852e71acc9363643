"""`sfvqa cache path`: the folder that encoded videos are kept in, for scripts."""

import json as jsonlib

import typer

from sfvqa.cli.models.options import Json, Quiet

HELP = """\b
[bold]Examples[/bold]
  sfvqa cache path
  ls "$(sfvqa cache path)"

Print the folder that encoded videos are kept in, and nothing else. It need not
be there yet. SFVQA_CACHE_DIR names the folder above it."""


def path(
    json: Json = False,
    quiet: Quiet = False,  # noqa: ARG001  it says nothing else anyway
) -> None:
    """Print the folder."""
    from sfvqa.inference.video_cache.store import video_cache_folder

    folder = str(video_cache_folder().absolute())
    typer.echo(jsonlib.dumps({"schema_version": 1, "folder": folder}) if json else folder)
