"""`sfvqa models pull`: fetch a model into the Hugging Face cache, or what is missing of it, and check every file."""

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.models import shared
from sfvqa.errors import ModelNotDownloadedError, UsageError

if TYPE_CHECKING:
    from sfvqa.checkpoints.download import PullPlan
    from sfvqa.checkpoints.find import CheckpointLocation
    from sfvqa.cli.notices import Notices
    from sfvqa.registry import ModelSpec

HELP = """\b
[bold]Examples[/bold]
  sfvqa models pull slowfast-7b-64f
  sfvqa models pull slowfast-7b-64f --yes --json
  sfvqa models pull slowfast-7b-64f --update
  HF_HOME=/big/disk sfvqa models pull slowfast-7b-64f

Download a model from the Hugging Face hub into its cache (HF_HOME). Licence
and size are shown first. Rerun an interrupted download to resume it: files that
are complete are kept. Every file is checked against its hash. The first commit
is kept until --update. HF_TOKEN and HF_ENDPOINT are honoured."""

_SHORT = 12
Update = Annotated[bool, typer.Option("--update", metavar="", help="Move to the newest commit on the hub.")]


def pull(
    name: shared.Name,
    update: Update = False,
    offline: shared.Offline = False,
    yes: shared.Yes = False,
    json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Say what it takes, ask, download, check."""
    from huggingface_hub import constants

    from sfvqa.checkpoints.download import plan_pull
    from sfvqa.checkpoints.find import locate_registered
    from sfvqa.cli.notices import Notices
    from sfvqa.registry import find_model

    notices, spec = Notices(quiet=quiet), find_model(name)
    is_offline = offline or constants.HF_HUB_OFFLINE
    if update and is_offline:
        raise UsageError("--update asks the hub, and this runs offline.", "Leave out one of them.")
    if spec.repo_id is None or is_offline:
        location = _look_here(spec)
        notices.note(_state(spec, location))
        downloaded, previous = 0, location.revision
    else:
        with notices.waiting("Asking the hub"):
            plan = plan_pull(spec, update=update)
        downloaded, previous = _carry_out(plan, notices, update=update, yes=yes), plan.previous_commit
        location = locate_registered(spec)
        notices.note(f"{spec.name} is here and every file is as the hub states: {location.folder}")
    if json:
        document = {
            "schema_version": 1,
            "name": spec.name,
            "repo_id": spec.repo_id,
            "license": spec.license,
            "revision": location.revision,
            "previous_revision": previous,
            "folder": str(location.folder),
            "downloaded_bytes": downloaded,
        }
        typer.echo(jsonlib.dumps(document))


def _look_here(spec: "ModelSpec") -> "CheckpointLocation":
    """Find a model on this machine alone, and keep its commit."""
    from sfvqa.checkpoints.find import is_commit, locate_registered, record_commit

    try:
        location = locate_registered(spec)
    except ModelNotDownloadedError as error:
        if spec.repo_id is None:
            raise
        remedy = "To download it, leave out --offline, and HF_HUB_OFFLINE if it is set."
        raise ModelNotDownloadedError(error.message, remedy) from error
    if location.revision is not None and is_commit(location.revision):
        record_commit(spec, location.revision)
    return location


def _carry_out(plan: "PullPlan", notices: "Notices", *, update: bool, yes: bool) -> int:
    """The bytes that were downloaded, once the user agreed to them."""
    from sfvqa.checkpoints.download import pull
    from sfvqa.cli.models.shared import confirm, follow_bytes
    from sfvqa.wording import readable_size

    for line in _describe(plan, update):
        notices.note(line)
    if plan.missing_bytes:
        size = readable_size(plan.missing_bytes)
        what = f"Pulling {plan.spec.name} downloads {size}, under the licence {plan.spec.license}."
        if not confirm(f"Download {size} under the licence {plan.spec.license}?", what, yes=yes):
            notices.note("Nothing was downloaded.")
            raise typer.Exit(1)
    try:
        replaced = follow_bytes(pull(plan), notices)
    except KeyboardInterrupt:
        notices.note("Rerun the command to resume: files that are complete are kept.")
        raise
    if replaced:
        notices.warn(f"Fetched again, because what was here was damaged: {', '.join(replaced)}")
    return plan.missing_bytes + sum(plan.file_bytes[name] for name in replaced)


def _describe(plan: "PullPlan", update: bool) -> list[str]:
    """What is shown before the question: what it is, whose terms it has, what it takes."""
    from sfvqa.checkpoints.find import is_commit
    from sfvqa.wording import plural, readable_size

    spec, commit, previous = plan.spec, plan.commit, plan.previous_commit
    lines = [f"{spec.name}: {spec.repo_id} at commit {commit}, licence {spec.license}"]
    if previous not in (None, commit):
        lines.append(f"It moves from commit {str(previous)[:_SHORT]} to {commit[:_SHORT]}.")
    elif update:
        pinned = " that models.toml lets it have" * is_commit(spec.revision)
        lines.append(f"{commit[:_SHORT]} is the newest commit{pinned}.")
    files = f"{readable_size(plan.total_bytes)} in {plural(len(plan.file_bytes), 'file')}"
    to_come = f"{readable_size(plan.missing_bytes)} of it to download into {plan.folder.parents[2]}"
    return [*lines, f"{files}, {to_come if plan.missing_bytes else 'all of it here'}"]


def _state(spec: "ModelSpec", location: "CheckpointLocation") -> str:
    if spec.is_bundled:
        return f"{spec.name} is part of the package: {location.folder}"
    return f"{spec.name} is here, at commit {location.revision}; no hub was asked: {location.folder}"
