"""`sfvqa models list`: what can be asked, and which of it is on this machine."""

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sfvqa.cli import options
from sfvqa.cli.models import shared

if TYPE_CHECKING:
    from sfvqa.registry import ModelSpec


HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models list --json

The models that `sfvqa ask --model NAME` knows by name. A checkpoint folder can be given by its path as well."""


def list_models(json: options.Json = False) -> None:
    """Print a row or an object a model."""
    from sfvqa.cli.terminal import echo
    from sfvqa.registry import load_registry

    entries = [(spec, _find(spec)) for spec in load_registry()]
    if json:
        models = [_entry(spec, found) for spec, found in entries]
        typer.echo(jsonlib.dumps({"schema_version": 1, "models": models}))
    else:
        echo("\n\n".join(_paragraph(spec, found) for spec, found in entries))


@dataclass(frozen=True)
class _Found:
    """What of a model is on this machine: `folder` is None when nothing is."""

    folder: Path | None
    is_whole: bool
    revision: str | None = None
    disk_bytes: int | None = None


def _find(spec: "ModelSpec") -> _Found:
    """Look at names and sizes only: a list must be quick."""
    from sfvqa.checkpoints.download import disk_bytes
    from sfvqa.checkpoints.find import cached_snapshot, locate_registered, missing_files

    if spec.is_bundled:
        return _Found(locate_registered(spec).folder, is_whole=True, revision=spec.revision)
    cached = cached_snapshot(spec) if spec.repo_id else None
    if cached is None:
        return _Found(None, is_whole=False, revision=spec.revision)
    return _Found(cached, not missing_files(cached), cached.name, disk_bytes(spec))


def _entry(spec: "ModelSpec", found: _Found) -> dict[str, object]:
    from sfvqa.checkpoints.find import is_downloaded

    return {
        "name": spec.name,
        "aliases": list(spec.aliases),
        "description": spec.description,
        "can_answer": spec.can_answer,
        "license": spec.license,
        "size_bytes": spec.size_bytes,
        "num_frames": spec.num_frames,
        "sampling": spec.sampling,
        "repo_id": spec.repo_id,
        "revision": found.revision,
        "bundled": spec.is_bundled,
        "available": is_downloaded(spec),
        "folder": None if found.folder is None else str(found.folder),
        "disk_bytes": found.disk_bytes,
    }


def _paragraph(spec: "ModelSpec", found: _Found) -> str:
    """A model in a few lines: readable in any width, and greppable by name."""
    from sfvqa.wording import plural, readable_size

    downloaded = "downloaded" if found.is_whole else "partly downloaded" if found.folder else "not downloaded"
    where = "bundled" if spec.is_bundled else downloaded
    facts = [where, readable_size(spec.size_bytes), plural(spec.num_frames, "frame"), f"licence {spec.license}"]
    if not spec.has_weights:
        facts[:2] = ["no weights"]
    lines = [f"{spec.name}  ({', '.join(facts)})", f"  {spec.description}"]
    lines.append(f"  Ask about {spec.can_answer}." if spec.has_weights else "  Runs with --random-weights only.")
    if spec.aliases:
        lines.append(f"  Also called {', '.join(spec.aliases)}.")
    if found.disk_bytes is not None:
        lines.append(f"  Commit {found.revision}, {readable_size(found.disk_bytes)} on disk in {found.folder}")
    if not found.is_whole and spec.repo_id:
        lines.append(f"  Download: sfvqa models pull {spec.name}")
    return "\n".join(lines)


PATH_HELP = """\b
[bold]Examples[/bold]
  sfvqa models path slowfast-7b-64f
  du -shL "$(sfvqa models path slowfast-7b-64f)"

Print the folder a model is loaded from, and nothing else. Exit code 4 when it
is not on this machine, or only partly."""


def path(
    model: shared.NameOrFolder,
    _offline: shared.Offline = False,  # it never asks a hub
    json: shared.Json = False,
    _quiet: shared.Quiet = False,  # it says nothing else anyway
) -> None:
    """Print the folder."""
    from sfvqa.checkpoints.find import locate

    location = locate(model)
    folder = str(location.folder.absolute())
    document = {"schema_version": 1, "name": location.name, "revision": location.revision, "folder": folder}
    typer.echo(jsonlib.dumps(document) if json else folder)
