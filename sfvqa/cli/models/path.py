"""`sfvqa models path`: the folder of a model on this machine, for scripts."""

import json as jsonlib

import typer

from sfvqa.cli.models import options

HELP = """\b
[bold]Examples[/bold]
  sfvqa models path slowfast-7b-64f
  du -shL "$(sfvqa models path slowfast-7b-64f)"

Print the folder a model is loaded from, and nothing else. Exit code 4 when it
is not on this machine, or only partly."""


def path(
    model: options.NameOrFolder,
    offline: options.Offline = False,  # noqa: ARG001  it never asks a hub
    json: options.Json = False,
    quiet: options.Quiet = False,  # noqa: ARG001  it says nothing else anyway
) -> None:
    """Print the folder."""
    from sfvqa.inference.locate import locate

    location = locate(model)
    folder = str(location.folder.absolute())
    document = {"schema_version": 1, "name": location.name, "revision": location.revision, "folder": folder}
    typer.echo(jsonlib.dumps(document) if json else folder)
