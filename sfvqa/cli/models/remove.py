"""`sfvqa models remove`: take a pulled model, or the quantized copies of it, off this machine again."""

import json as jsonlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.models import options

if TYPE_CHECKING:
    from sfvqa.registry import ModelSpec

HELP = """\b
[bold]Examples[/bold]
  sfvqa models remove slowfast-7b-64f
  sfvqa models remove slowfast-7b-64f --quantized
  sfvqa models remove slowfast-7b-64f --yes --json

Delete everything of a model in the Hugging Face cache: all commits that are
there, and parts of an interrupted download. Other programs share that cache.
Copies made by `sfvqa models quantize` stay; --quantized removes them instead,
also one that is damaged, and what an interrupted `quantize` left."""

Quantized = Annotated[
    bool, typer.Option("--quantized", metavar="", help="Delete the copies kept by `models quantize` instead.")
]


@dataclass(frozen=True)
class _Removal:
    """What is about to be deleted, in words and in the fields of the JSON object, and how."""

    what: str
    freed_bytes: int
    fields: dict[str, object]
    carry_out: Callable[[], None]


def remove(
    name: options.Name,
    quantized: Quantized = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.cli.models.confirm import confirm
    from sfvqa.cli.render import Notices
    from sfvqa.cli.text import readable_size
    from sfvqa.registry import find_model

    notices, spec = Notices(quiet=quiet), find_model(name)
    removal = _of_copies(spec) if quantized else _of_download(spec)
    size = readable_size(removal.freed_bytes)
    notices.note(removal.what)
    if not confirm(f"Delete {size}?", removal.what, yes=yes):
        notices.note("Nothing was removed.")
        raise typer.Exit(1)
    removal.carry_out()
    notices.note(f"{size} are free again.")
    if json:
        document = {"schema_version": 1, "name": spec.name, **removal.fields, "freed_bytes": removal.freed_bytes}
        typer.echo(jsonlib.dumps(document))


def _of_download(spec: "ModelSpec") -> _Removal:
    from sfvqa.cli.text import plural, readable_size
    from sfvqa.inference.copy_folders import remains_of
    from sfvqa.inference.hub.remove import plan_removal, remove

    plan = plan_removal(spec)
    commits = plural(len(plan.commits), "commit")
    what = f"Removing {spec.name} deletes {readable_size(plan.freed_bytes)} ({commits}) in {plan.folder}."
    if copies := remains_of(spec):
        kinds = " and ".join(copy.quantization for copy in copies)
        what += f" What is kept of it in {kinds} stays; --quantized removes that."
    fields: dict[str, object] = {"repo_id": spec.repo_id, "revisions": list(plan.commits)}
    return _Removal(what, plan.freed_bytes, fields, lambda: remove(plan))


def _of_copies(spec: "ModelSpec") -> _Removal:
    from sfvqa.cli.text import readable_size
    from sfvqa.errors import ModelNotDownloadedError
    from sfvqa.inference.copy_folders import remains_of, remove_remains

    copies = remains_of(spec)
    if not copies:
        raise ModelNotDownloadedError(f"No quantized copy of {spec.name} is kept.", "There is nothing to remove.")
    freed = sum(copy.size_bytes for copy in copies)
    folders = " and ".join(str(folder) for copy in copies for folder in copy.folders)
    what = f"Removing the quantized copies of {spec.name} deletes {readable_size(freed)} in {folders}."
    fields: dict[str, object] = {"quantizations": [copy.quantization.value for copy in copies]}

    def carry_out() -> None:
        for copy in copies:
            remove_remains(copy)

    return _Removal(what, freed, fields, carry_out)
