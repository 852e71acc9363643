"""`sfvqa models remove`: take a pulled model off this machine again."""

import json as jsonlib

import typer

from sfvqa.cli.models import shared

HELP = """\b
[bold]Examples[/bold]
  sfvqa models remove slowfast-7b-64f
  sfvqa models remove slowfast-7b-64f --yes --json

Delete everything of a model in the Hugging Face cache: all commits that are
there, and parts of an interrupted download. Other programs share that cache.
Folders written by `sfvqa models quantize` stay: delete them as any folder."""


def remove(
    name: shared.Name,
    yes: shared.Yes = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.checkpoints import download
    from sfvqa.cli.notices import Notices
    from sfvqa.registry import find_model
    from sfvqa.wording import plural, readable_size

    notices, spec = Notices(quiet=quiet), find_model(name)
    commits, freed_bytes = download.commits_here(spec), download.disk_bytes(spec)
    size = readable_size(freed_bytes)
    folder = download.repository_folder(spec)
    what = f"Removing {spec.name} deletes {size} ({plural(len(commits), 'commit')}) in {folder}."
    notices.note(what)
    if not shared.confirm(f"Delete {size}?", what, yes=yes):
        notices.note("Nothing was removed.")
        raise typer.Exit(1)
    download.remove(spec)
    notices.note(f"{size} are free again.")
    if json:
        fields = {"name": spec.name, "repo_id": spec.repo_id, "revisions": commits, "freed_bytes": freed_bytes}
        typer.echo(jsonlib.dumps({"schema_version": 1, **fields}))
