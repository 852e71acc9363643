"""`sfvqa models list`: what can be asked, and which of it is on this machine."""

import json as jsonlib
from typing import TYPE_CHECKING

import typer

from sfvqa.cli import options

if TYPE_CHECKING:
    from sfvqa.registry import ModelSpec

HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models list --json

The models that `sfvqa ask --model NAME` knows by name. A checkpoint folder can be given by its path as well."""


def list_models(json: options.Json = False) -> None:
    """Print a row or an object a model."""
    from sfvqa.inference.locate import is_downloaded
    from sfvqa.registry import load_registry

    entries = [(spec, is_downloaded(spec)) for spec in load_registry()]
    if json:
        models = [_entry(spec, is_here) for spec, is_here in entries]
        typer.echo(jsonlib.dumps({"schema_version": 1, "models": models}))
    else:
        typer.echo("\n\n".join(_paragraph(spec, is_here) for spec, is_here in entries))


def _entry(spec: "ModelSpec", is_here: bool) -> dict[str, object]:
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
        "revision": spec.revision,
        "bundled": spec.is_bundled,
        "available": is_here,
    }


def _paragraph(spec: "ModelSpec", is_here: bool) -> str:
    """A model in a few lines: readable in any width, and greppable by name."""
    from sfvqa.cli.text import plural, readable_size

    where = "bundled" if spec.is_bundled else "downloaded" if is_here else "not downloaded"
    facts = [where, readable_size(spec.size_bytes), plural(spec.num_frames, "frame"), f"licence {spec.license}"]
    if not spec.has_weights:
        facts[:2] = ["no weights"]
    lines = [f"{spec.name}  ({', '.join(facts)})", f"  {spec.description}"]
    lines.append(f"  Ask about {spec.can_answer}." if spec.has_weights else "  Runs with --random-weights only.")
    if spec.aliases:
        lines.append(f"  Also called {', '.join(spec.aliases)}.")
    if not is_here and spec.repo_id:
        lines.append(f"  Download: hf download {spec.repo_id}")
    return "\n".join(lines)
