"""`sfvqa models verify`: whether the files of a model are those the hub stated, and would load; asks no hub."""

import json as jsonlib
from typing import TYPE_CHECKING

import typer

from sfvqa.cli.models import shared
from sfvqa.errors import CheckpointError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.checkpoints.download import FileCheck
    from sfvqa.checkpoints.find import CheckpointLocation

HELP = """\b
[bold]Examples[/bold]
  sfvqa models verify slowfast-7b-64f
  sfvqa models verify ./my-checkpoint --json

Hash every file of a model and compare with what the hub stated when it was
pulled, then check what `ask` checks: that the tensors, by name and shape, and
the tokenizer are those of the model. Needs no network. Files that came in
another way have no hash to compare with: then it says so, and values that are
wrong, as NaN is, are not found."""


def verify(
    model: shared.NameOrFolder,
    _offline: shared.Offline = False,  # it never asks a hub
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Check and say what was found; CheckpointError names the files that are wrong."""
    from sfvqa.checkpoints.download import check_folder
    from sfvqa.checkpoints.find import locate, missing_files
    from sfvqa.cli.models.shared import follow_bytes
    from sfvqa.cli.notices import Notices
    from sfvqa.cli.terminal import echo

    location = locate(model)
    if missing := missing_files(location.folder):
        raise CheckpointError(f"{location.folder} lacks {', '.join(missing[:5])}.", "It is no whole checkpoint.")
    notices = Notices(quiet=quiet)
    checks = follow_bytes(check_folder(location.folder), notices)
    if wrong := [check for check in checks if check.fault]:
        faults = "; ".join(f"{check.path.name} ({check.fault})" for check in wrong)
        are = "is" if len(wrong) == 1 else "are"
        raise CheckpointError(
            f"{len(wrong)} of the {plural(len(checks), 'file')} of {location.name} {are} damaged: {faults}.",
            _remedy(location),
        )
    with notices.waiting("Checking what would be loaded"):  # importing torch is most of it
        from sfvqa.checkpoints.load import check_checkpoint

        check_checkpoint(location.folder)
    if json:
        typer.echo(jsonlib.dumps(_document(location, checks)))
    else:
        echo(_sentence(location, checks))


def _remedy(location: "CheckpointLocation") -> str:
    if location.spec is None:
        return "Copy or fetch it again."
    if location.spec.is_bundled:
        return "Install sfvqa again."
    return f"Type `sfvqa models pull {location.name}`: it fetches the damaged files again, and only those."


def _sentence(location: "CheckpointLocation", checks: "tuple[FileCheck, ...]") -> str:
    from sfvqa.wording import plural, readable_size

    files = f"{plural(len(checks), 'file')}, {readable_size(sum(check.size_bytes for check in checks))}"
    compared = sum(check.compared_with is not None for check in checks)
    commit = f" at commit {location.revision}" if location.revision else ""
    if compared == len(checks):
        return f"{location.name}{commit}: {files}, fit to load, each with the hash that the hub stated"
    if compared:
        return (
            f"{location.name}{commit}: {files}, fit to load; {compared} have a hash to compare with, and that is right"
        )
    return f"{location.name}{commit}: {files}, fit to load; there are no hashes to compare with"


def _document(location: "CheckpointLocation", checks: "tuple[FileCheck, ...]") -> dict[str, object]:
    return {
        "schema_version": 1,
        "name": location.name,
        "revision": location.revision,
        "folder": str(location.folder),
        "files": [
            {"name": check.path.name, "size_bytes": check.size_bytes, "compared_with": check.compared_with}
            for check in checks
        ],
    }
