"""`sfvqa models pull`: fetch a model into the Hugging Face cache, or what is missing of it, and check every file."""

import json as jsonlib
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.models import options
from sfvqa.errors import ModelNotDownloadedError, UsageError

if TYPE_CHECKING:
    from sfvqa.cli.render import Notices
    from sfvqa.inference.hub.pull import PulledModel, PullPlan
    from sfvqa.inference.locate import CheckpointLocation
    from sfvqa.registry import ModelSpec

HELP = """\b
[bold]Examples[/bold]
  sfvqa models pull slowfast-7b-64f
  sfvqa models pull slowfast-7b-64f --yes --json
  sfvqa models pull slowfast-7b-64f --update
  HF_HOME=/big/disk sfvqa models pull slowfast-7b-64f

Fetch a model from the Hugging Face hub into its cache (HF_HOME). Licence and
size are shown before; an interrupted download goes on where it stopped; every
file is checked against its hash. The commit that comes first is kept until
--update. HF_TOKEN and HF_ENDPOINT are honoured."""

_SHORT = 12
Update = Annotated[bool, typer.Option("--update", metavar="", help="Move to the newest commit on the hub.")]


def pull(
    name: options.Name,
    update: Update = False,
    offline: options.Offline = False,
    yes: options.Yes = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what it takes, ask, download, check."""
    from huggingface_hub import constants

    from sfvqa.cli.render import Notices
    from sfvqa.inference.hub.pull import plan_pull
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
        pulled = _carry_out(plan, notices, update=update, yes=yes)
        location, downloaded, previous = pulled.location, pulled.downloaded_bytes, plan.previous_commit
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
    from sfvqa.inference.hub.pull import adopt

    try:
        return adopt(spec)
    except ModelNotDownloadedError as error:
        if spec.repo_id is None:
            raise
        remedy = "To download it, leave out --offline, and HF_HUB_OFFLINE if it is set."
        raise ModelNotDownloadedError(error.message, remedy) from error


def _carry_out(plan: "PullPlan", notices: "Notices", *, update: bool, yes: bool) -> "PulledModel":
    from sfvqa.cli.models.byte_bars import follow_bytes
    from sfvqa.cli.models.confirm import confirm
    from sfvqa.cli.text import readable_size
    from sfvqa.inference.hub.pull import pull

    for line in _describe(plan, update):
        notices.note(line)
    if plan.missing_bytes:
        size = readable_size(plan.missing_bytes)
        what = f"Pulling {plan.spec.name} downloads {size}, under the licence {plan.spec.license}."
        if not confirm(f"Download {size} under the licence {plan.spec.license}?", what, yes=yes):
            notices.note("Nothing was downloaded.")
            raise typer.Exit(1)
    try:
        pulled = follow_bytes(pull(plan), notices)
    except KeyboardInterrupt:
        notices.note("What has come is kept, and the same command goes on from there.")
        raise
    if pulled.replaced:
        notices.warn(f"Fetched again, because what was here was damaged: {', '.join(pulled.replaced)}")
    notices.note(f"{plan.spec.name} is here and every file is as the hub states: {pulled.location.folder}")
    return pulled


def _describe(plan: "PullPlan", update: bool) -> list[str]:
    """What is shown before the question: what it is, whose terms it has, what it takes."""
    from sfvqa.cli.text import plural, readable_size

    spec, listing = plan.spec, plan.listing
    files = f"{readable_size(listing.total_bytes)} in {plural(len(listing.files), 'file')}"
    lines = [f"{spec.name}: {listing.repo_id} at commit {listing.commit}, licence {spec.license}"]
    if plan.changes_commit:
        lines.append(f"It moves from commit {str(plan.previous_commit)[:_SHORT]} to {listing.commit[:_SHORT]}.")
    elif update:
        lines.append(
            f"{listing.commit[:_SHORT]} is the newest commit{' that models.toml lets it have' * _pinned(spec)}."
        )
    if plan.missing_bytes:
        lines.append(
            f"{files}, of which {readable_size(plan.missing_bytes)} are still to come; "
            f"{readable_size(plan.free_bytes)} are free in {plan.folder.parents[2]}"
        )
    else:
        lines.append(f"{files}, all of it here")
    return lines


def _pinned(spec: "ModelSpec") -> bool:
    from sfvqa.inference.hub.records import is_commit

    return is_commit(spec.revision)


def _state(spec: "ModelSpec", location: "CheckpointLocation") -> str:
    if spec.is_bundled:
        return f"{spec.name} is part of the package: {location.folder}"
    return f"{spec.name} is here, at commit {location.revision}; no hub was asked: {location.folder}"
