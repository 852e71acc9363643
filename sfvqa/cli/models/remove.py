"""`sfvqa models remove`: take a pulled model off this machine again."""

import json as jsonlib

import typer

from sfvqa.cli.models import options

HELP = """\b
[bold]Examples[/bold]
  sfvqa models remove slowfast-7b-64f
  sfvqa models remove slowfast-7b-64f --yes --json

Delete everything of a model in the Hugging Face cache: all commits that are
there, and parts of an interrupted download. Other programs share that cache."""


def remove(
    name: options.Name, yes: options.Yes = False, json: options.Json = False, quiet: options.Quiet = False
) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.cli.models.confirm import confirm
    from sfvqa.cli.render import Notices
    from sfvqa.cli.text import plural, readable_size
    from sfvqa.inference.hub.remove import plan_removal, remove
    from sfvqa.registry import find_model

    notices, plan = Notices(quiet=quiet), plan_removal(find_model(name))
    size = readable_size(plan.freed_bytes)
    what = f"Removing {plan.spec.name} deletes {size} ({plural(len(plan.commits), 'commit')}) in {plan.folder}."
    notices.note(what)
    if not confirm(f"Delete {size}?", what, yes=yes):
        notices.note("Nothing was removed.")
        raise typer.Exit(1)
    remove(plan)
    notices.note(f"{plan.spec.name} is removed, and {size} are free again.")
    if json:
        document = {
            "schema_version": 1,
            "name": plan.spec.name,
            "repo_id": plan.spec.repo_id,
            "revisions": list(plan.commits),
            "freed_bytes": plan.freed_bytes,
        }
        typer.echo(jsonlib.dumps(document))
