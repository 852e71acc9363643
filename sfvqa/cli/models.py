"""`sfvqa models`: list, download, check, quantize and delete the models that can be asked."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sfvqa.checkpoints.find import (
    CheckpointLocation,
    cached_snapshot,
    is_commit,
    is_downloaded,
    locate_any,
    locate_registered,
    missing_files,
    missing_speech_files,
    record_commit,
    revision_of,
)
from sfvqa.cli import model_info
from sfvqa.cli.model import AnyName, Device, NameOrFolder
from sfvqa.cli.options import Command, Json, ResultOptions, Yes, compose, option
from sfvqa.cli.screen import agree_to_delete, can_ask, confirm, echo, print_json
from sfvqa.errors import CheckpointError, ModelNotDownloadedError, UsageError
from sfvqa.registry import (
    SUGGESTED_MODEL,
    ModelSpec,
    PublishedModel,
    QuantizationName,
    SpeechSpec,
    find_any_model,
    find_model,
    load_registry,
)
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.checkpoints.download import FileCheck, PullPlan
    from sfvqa.cli.screen import Notices


Offline = Annotated[bool, option("Use only what is on this machine, like HF_HUB_OFFLINE=1.", "--offline")]

LIST_HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models list --json

List the models that `sfvqa ask --model NAME` accepts, and the speech models
that --speech-model accepts. Both also accept the path of a folder."""


def list_models(as_json: Json = False) -> None:
    """Print some lines or an object a model."""

    registry = load_registry()
    entries, speech = [_entry(spec) for spec in registry], [_speech_entry(spec) for spec in registry.speech]
    if as_json:
        print_json({"models": entries, "speech_models": speech})
    else:
        echo("\n\n".join(map(_paragraph, entries)))
        echo("\nSpeech models, for --speech and `sfvqa transcribe`:\n")
        echo("\n\n".join(map(_speech_paragraph, speech)))


_LISTED = ("name", "description", "can_answer", "license", "size_bytes", "num_frames", "sampling", "repo_id")


def _entry(spec: ModelSpec) -> dict[str, Any]:
    """A model, what it needs, and what of it is on this machine, by names and sizes only: a list must be quick."""
    return {
        **{name: getattr(spec, name) for name in _LISTED},
        "memory_bytes": _memory_bytes(spec),
        "aliases": list(spec.aliases),
        **_what_is_here(spec),
    }


_LISTED_OF_SPEECH = ("name", "description", "license", "size_bytes", "repo_id")


def _speech_entry(spec: SpeechSpec) -> dict[str, Any]:
    named = {name: getattr(spec, name) for name in _LISTED_OF_SPEECH}
    return {**named, "aliases": list(spec.aliases), **_what_is_here(spec)}


def _what_is_here(spec: PublishedModel) -> dict[str, Any]:
    from sfvqa.checkpoints.download import disk_bytes

    folder, revision, on_disk = None, spec.revision, None
    if spec.is_bundled:
        folder = locate_registered(spec).folder
    elif spec.repo_id and (cached := cached_snapshot(spec)):
        folder, revision, on_disk = cached, cached.name, disk_bytes(spec)
    return {
        "revision": revision,
        "bundled": spec.is_bundled,
        "available": is_downloaded(spec),
        "folder": None if folder is None else str(folder),
        "disk_bytes": on_disk,
    }


def _memory_bytes(spec: ModelSpec) -> dict[str, int]:
    """What a short question takes on a CPU, in 16 bits and with the decoder in 4."""
    from sfvqa.checkpoints.memory import NUM_TEXT_TOKENS, RunSize, estimate_memory
    from sfvqa.registry.architecture import num_layout_tokens

    sizes, fast = spec.architecture, spec.fast_tokens
    num_text = NUM_TEXT_TOKENS + num_layout_tokens(sizes, fast, spec.num_frames)
    runs = {
        kind: RunSize(spec.num_frames, "bfloat16", "cpu", QuantizationName(quantization), num_text)
        for kind, quantization in {"16bit": "none", "4bit": "4bit"}.items()
    }
    return {kind: estimate_memory(sizes, fast, run).needed_bytes for kind, run in runs.items()}


def _paragraph(entry: dict[str, Any]) -> str:
    """A model in a few lines: readable in any width, and greppable by name."""
    has_weights = entry["bundled"] or entry["repo_id"]
    where = ["bundled" if entry["bundled"] else _how_much_is_here(entry), readable_size(entry["size_bytes"])]
    facts = [
        *(where if has_weights else ["no weights"]),
        plural(entry["num_frames"], "frame"),
        f"licence {entry['license']}",
    ]
    lines = [f"{entry['name']}  ({', '.join(facts)})", f"  {entry['description']}"]
    lines.append(f"  Ask about {entry['can_answer']}." if has_weights else "  Runs with --random-weights only.")
    in_16_bits, in_4_bits = map(readable_size, entry["memory_bytes"].values())
    lines.append(f"  Memory: {in_16_bits} in 16 bits, {in_4_bits} in 4 bits.")
    return "\n".join([*lines, *_where_it_is(entry)])


def _speech_paragraph(entry: dict[str, Any]) -> str:
    size = readable_size(entry["size_bytes"])
    head = f"{entry['name']}  ({_how_much_is_here(entry)}, {size}, licence {entry['license']})"
    return "\n".join([head, f"  {entry['description']}", *_where_it_is(entry)])


def _how_much_is_here(entry: dict[str, Any]) -> str:
    return "downloaded" if entry["available"] else "partly downloaded" if entry["folder"] else "not downloaded"


def _where_it_is(entry: dict[str, Any]) -> Iterator[str]:
    if entry["aliases"]:
        yield f"  Also called {', '.join(entry['aliases'])}."
    if entry["disk_bytes"] is not None:
        yield f"  Commit {entry['revision']}, {readable_size(entry['disk_bytes'])} on disk in {entry['folder']}"
    if entry["repo_id"] and not entry["available"]:
        yield f"  Download: sfvqa models pull {entry['name']}"


PATH_HELP = """\b
[bold]Examples[/bold]
  sfvqa models path slowfast-7b-64f
  du -shL "$(sfvqa models path slowfast-7b-64f)"

Print the folder that a model is loaded from. The exit code is 4 if the model
is not on this machine, or only in part."""


def path(
    model: NameOrFolder,
    _offline: Offline = False,  # it never asks a hub
    *,
    result: ResultOptions,
) -> None:
    """Print the folder, and nothing else."""

    location = locate_any(model)
    folder = str(location.folder.absolute())
    if result.json:
        print_json({"name": location.name, "revision": location.revision, "folder": folder})
    else:
        typer.echo(folder)


PULL_HELP = """\b
[bold]Examples[/bold]
  sfvqa models pull slowfast-7b-64f
  sfvqa models pull slowfast-7b-64f --yes --json
  sfvqa models pull slowfast-7b-64f --update
  HF_HOME=/big/disk sfvqa models pull slowfast-7b-64f

Download a model from the Hugging Face Hub into its cache (HF_HOME). The
licence and the size are shown first. Rerun an interrupted download to resume
it: complete files are kept. Every file is checked against its hash. The
model stays at the commit of the first download until --update. HF_TOKEN and
HF_ENDPOINT are honoured."""

_SHORT = 12
Update = Annotated[bool, option("Move to the newest commit on the hub.")]


def pull(
    name: AnyName, update: Update = False, offline: Offline = False, yes: Yes = False, *, result: ResultOptions
) -> None:
    """Say what it takes, ask, download what is missing, check every file."""
    from huggingface_hub import constants

    from sfvqa.checkpoints.download import plan_pull

    notices, spec = result.notices(), find_any_model(name)
    is_offline = offline or constants.HF_HUB_OFFLINE
    if update and is_offline:
        raise UsageError("--update needs the hub, and this run is offline.", "Leave out --update, or go online.")
    if spec.repo_id is None or is_offline:
        location = _look_here(spec)
        here = "is bundled" if spec.is_bundled else f"is here, at commit {location.revision}; the hub was not asked"
        notices.note(f"{spec.name} {here}: {location.folder}")
        downloaded, previous = 0, location.revision
    else:
        with notices.waiting("Asking the hub"):
            plan = plan_pull(spec, update=update)
        downloaded, previous = _carry_out(plan, notices, update=update, yes=yes), plan.previous_commit
        location = locate_registered(spec)
        notices.note(f"{spec.name} is downloaded, and every file matches its hash: {location.folder}")
    if result.json:
        print_json(
            {
                "name": spec.name,
                "repo_id": spec.repo_id,
                "license": spec.license,
                "revision": location.revision,
                "previous_revision": previous,
                "folder": str(location.folder),
                "downloaded_bytes": downloaded,
            }
        )


def _look_here(spec: PublishedModel) -> CheckpointLocation:
    """Find a model on this machine alone, and keep its commit."""

    try:
        location = locate_registered(spec)
    except ModelNotDownloadedError as error:
        if spec.repo_id is None:
            raise
        remedy = "To download it, leave out --offline, and unset HF_HUB_OFFLINE."
        raise ModelNotDownloadedError(error.message, remedy) from error
    if location.revision is not None and is_commit(location.revision):
        record_commit(spec, location.revision)
    return location


def _carry_out(plan: "PullPlan", notices: "Notices", *, update: bool, yes: bool) -> int:
    """The bytes that were downloaded, once the user agreed to them."""
    from sfvqa.checkpoints.download import pull

    for line in _describe(plan, update):
        notices.note(line)
    if plan.missing_bytes:
        what = f"{readable_size(plan.missing_bytes)} under the licence {plan.spec.license}"
        if not confirm(f"Download {what}?", f"Pulling {plan.spec.name} downloads {what}.", yes=yes):
            notices.note("Nothing was downloaded.")
            raise typer.Exit(1)
    try:
        replaced = notices.follow(pull(plan), in_bytes=True)
    except KeyboardInterrupt:
        notices.note("Rerun the command to resume; complete files are kept.")
        raise
    if replaced:
        notices.warn(f"Damaged files were downloaded again: {', '.join(replaced)}.")
    return plan.missing_bytes + sum(plan.file_bytes[name] for name in replaced)


def offer_download(notices: "Notices") -> None:
    """Ask whether to download a model for any video where only the bundled one is here; never without a terminal."""
    has_any = any(is_downloaded(spec) for spec in load_registry() if not spec.is_bundled)
    if has_any or notices.quiet or not can_ask():
        return
    from huggingface_hub import constants

    from sfvqa.checkpoints.download import plan_pull
    from sfvqa.checkpoints.host import free_host_bytes

    spec = find_model(SUGGESTED_MODEL)
    if constants.HF_HUB_OFFLINE or _memory_bytes(spec)["4bit"] > (free_host_bytes() or 0):
        return
    what = f"{spec.name}, for any video ({readable_size(spec.size_bytes)}, licence {spec.license})"
    if typer.confirm(f"Download {what}?", err=True):
        with notices.waiting("Asking the hub"):
            plan = plan_pull(spec)
        _carry_out(plan, notices, update=False, yes=True)


def _describe(plan: "PullPlan", update: bool) -> list[str]:
    """What is shown before the question: what it is, whose terms it has, what it takes."""

    spec, commit, previous = plan.spec, plan.commit, plan.previous_commit
    lines = [f"{spec.name}: {spec.repo_id} at commit {commit}, licence {spec.license}"]
    if previous not in (None, commit):
        lines.append(f"Updating from commit {str(previous)[:_SHORT]} to {commit[:_SHORT]}.")
    elif update:
        pinned = " that models.toml allows" * is_commit(spec.revision)
        lines.append(f"{commit[:_SHORT]} is the newest commit{pinned}.")
    files = f"{readable_size(plan.total_bytes)} in {plural(len(plan.file_bytes), 'file')}"
    to_come = f"{readable_size(plan.missing_bytes)} to download into {plan.folder.parents[2]}"
    return [*lines, f"{files}; {to_come if plan.missing_bytes else 'nothing to download'}"]


VERIFY_HELP = """\b
[bold]Examples[/bold]
  sfvqa models verify slowfast-7b-64f
  sfvqa models verify ./my-checkpoint --json

Hash every file of a model and compare it with the hash that the hub stated
when the model was pulled, then check what `ask` checks: the names and shapes
of the tensors, and the tokenizer. This needs no network. Files that were not
pulled have no hash to compare with, and the result says so; wrong values in
them, such as NaN, go unnoticed."""


def verify(
    model: NameOrFolder,
    _offline: Offline = False,  # it never asks a hub
    *,
    result: ResultOptions,
) -> None:
    """Check and say what was found; CheckpointError names the files that are wrong."""
    from sfvqa.checkpoints.download import check_folder

    location, notices = locate_any(model), result.notices()
    is_speech = not missing_speech_files(location.folder)
    if not is_speech and (missing := missing_files(location.folder)):
        raise CheckpointError(f"{location.folder} lacks {', '.join(missing[:5])}.", "Name a complete checkpoint.")
    checks = notices.follow(check_folder(location.folder), in_bytes=True)
    if wrong := [check for check in checks if check.fault]:
        raise _damaged(location, wrong, len(checks))
    with notices.waiting("Checking tensors and tokenizer"):  # importing torch is most of it
        if is_speech:
            from sfvqa.inference.speech import check_installed, load_model

            check_installed()
            load_model(location.folder, None)
        else:
            from sfvqa.checkpoints.load import check_checkpoint

            check_checkpoint(location.folder)
    if result.json:
        files = [
            {"name": check.path.name, "size_bytes": check.size_bytes, "compared_with": check.compared_with}
            for check in checks
        ]
        folder = str(location.folder)
        print_json({"name": location.name, "revision": location.revision, "folder": folder, "files": files})
    else:
        commit = f" at commit {location.revision}" if location.revision else ""
        size = readable_size(sum(check.size_bytes for check in checks))
        compared = sum(check.compared_with is not None for check in checks)
        matching = "all hashes match" if compared == len(checks) else f"the {compared} known hashes match"
        hashes = matching if compared else "there are no hashes to compare with"
        echo(f"{location.name}{commit}: {plural(len(checks), 'file')}, {size}, loadable; {hashes}")


def _damaged(location: CheckpointLocation, wrong: "list[FileCheck]", num_files: int) -> CheckpointError:
    faults = "; ".join(f"{check.path.name} ({check.fault})" for check in wrong)
    are = "is" if len(wrong) == 1 else "are"
    remedy = f"Run `sfvqa models pull {location.name}` to download the damaged files again."
    if location.revision is None and location.spec is None:
        remedy = "Copy or download it again."
    elif location.spec is not None and location.spec.is_bundled:
        remedy = "Reinstall sfvqa."
    of_all = f"{len(wrong)} of the {plural(num_files, 'file')}"
    return CheckpointError(f"{of_all} of {location.name} {are} damaged: {faults}.", remedy)


REMOVE_HELP = """\b
[bold]Examples[/bold]
  sfvqa models remove slowfast-7b-64f
  sfvqa models remove slowfast-7b-64f --yes --json

Delete a model from the Hugging Face cache: all its commits, and what
interrupted downloads left behind. Other programs share that cache. Folders written
by `sfvqa models quantize` stay; delete them like any other folder."""


def remove(name: AnyName, yes: Yes = False, *, result: ResultOptions) -> None:
    """Say what goes, ask, delete."""
    from sfvqa.checkpoints import download

    notices, spec = result.notices(), find_any_model(name)
    commits, freed_bytes = download.commits_here(spec), download.disk_bytes(spec)
    size = readable_size(freed_bytes)
    folder = download.repository_folder(spec)
    what = f"Removing {spec.name} deletes {size} ({plural(len(commits), 'commit')}) in {folder}."
    agree_to_delete(size, what, notices, yes=yes)
    download.remove(spec)
    notices.note(f"{size} freed.")
    if result.json:
        fields = {"name": spec.name, "repo_id": spec.repo_id, "revisions": commits, "freed_bytes": freed_bytes}
        print_json(fields)


QUANTIZE_HELP = """\b
[bold]Examples[/bold]
  sfvqa models quantize slowfast-7b-64f ./7b-4bit
  sfvqa ask clip.mp4 "What happens?" --model ./7b-4bit

Write a model with its decoder in 4 or 8 bits to a new folder, so that
loading it reads less. Give it to --model like any other checkpoint folder;
--quant is not needed."""

Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.", show_default=False)]
Bits = Annotated[Literal["4bit", "8bit"], option("4bit or 8bit.", metavar="NAME")]


def quantize(
    model: NameOrFolder, out: Out, quant: Bits = "4bit", device: Device = "auto", *, result: ResultOptions
) -> None:
    """Write the folder, and say where it is."""
    notices = result.notices()
    with notices.waiting(f"Quantizing {model}"):
        from sfvqa.checkpoints.gpus import why_unusable
        from sfvqa.checkpoints.quantize import quantize

        if device == "auto" and (error := why_unusable()):
            notices.warn(f"Quantizing on the CPU. {error.with_flags}")
        made_of = quantize(model, out, quant, device=device)
    size_bytes = sum(path.stat().st_size for path in out.iterdir())
    if result.json:
        print_json(
            {
                "model": made_of.name,
                "revision": revision_of(made_of),
                "quantization": quant,
                "folder": str(out),
                "size_bytes": size_bytes,
            }
        )
    else:
        echo(f"{out}  ({made_of.name} in {quant}, {readable_size(size_bytes)})")


HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models info slowfast-7b-64f
  sfvqa models pull slowfast-7b-64f
  sfvqa models verify slowfast-7b-64f
  sfvqa models quantize slowfast-7b-64f ./7b-4bit
  sfvqa models remove slowfast-7b-64f

Manage the models that `sfvqa ask --model NAME` accepts, and the speech models
that --speech-model accepts. Both also accept the path of a folder."""

app = typer.Typer(help=HELP, no_args_is_help=True)
for _name, _command, _help, _short_help in (
    ("list", list_models, LIST_HELP, "List the models, and which are on this machine."),
    ("info", model_info.info, model_info.HELP, "Describe a model and the memory it needs."),
    ("pull", pull, PULL_HELP, "Download a model, or the files of it that are missing."),
    ("verify", verify, VERIFY_HELP, "Check a model's files against their hashes."),
    ("path", path, PATH_HELP, "Print the folder of a model."),
    ("remove", remove, REMOVE_HELP, "Delete a downloaded model."),
    ("quantize", quantize, QUANTIZE_HELP, "Write a model in 4 or 8 bits to a folder."),
):
    app.command(_name, cls=Command, help=_help, short_help=_short_help)(compose(_command))
