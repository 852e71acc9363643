"""`sfvqa models quantize`: write a model in fewer bits to a folder, so that loading it reads less."""

import json as jsonlib
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfvqa.cli import options
from sfvqa.cli.model import Device
from sfvqa.cli.models import shared

HELP = """\b
[bold]Examples[/bold]
  sfvqa models quantize slowfast-7b-64f ./7b-4bit
  sfvqa ask clip.mp4 "What happens?" --model ./7b-4bit

Write a model with its decoder in 4 or 8 bits to a new folder. --model takes it
like any other checkpoint folder, and needs no --quant."""

Out = Annotated[Path, typer.Argument(metavar="OUT", help="A folder that does not exist yet.", show_default=False)]
Bits = Annotated[Literal["4bit", "8bit"], typer.Option("--quant", metavar="NAME", help="4bit or 8bit.")]


def quantize(
    model: shared.NameOrFolder,
    out: Out,
    quant: Bits = "4bit",
    device: Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the folder, and say where it is."""
    from sfvqa.cli.notices import Notices
    from sfvqa.cli.terminal import echo
    from sfvqa.wording import readable_size

    with Notices(quiet=quiet).waiting(f"Quantizing {model}"):
        from sfvqa.checkpoints.find import revision_of
        from sfvqa.checkpoints.quantize import quantize

        made_of = quantize(model, out, quant, device=device)
    size_bytes = sum(path.stat().st_size for path in out.iterdir())
    if json:
        fields = {
            "schema_version": 1,
            "model": made_of.name,
            "revision": revision_of(made_of),
            "quantization": quant,
            "folder": str(out),
            "size_bytes": size_bytes,
        }
        typer.echo(jsonlib.dumps(fields))
    else:
        echo(f"{out}  ({made_of.name} in {quant}, {readable_size(size_bytes)})")
