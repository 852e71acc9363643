"""`sfvqa models quantize`: keep a quantized copy of a model, so that the next start reads less."""

import json as jsonlib
from typing import Annotated, Literal

import typer

from sfvqa.cli import options

HELP = """\b
[bold]Examples[/bold]
  sfvqa models quantize slowfast-7b-64f --quant 4bit
  sfvqa ask clip.mp4 "What happens?" --model slowfast-7b-64f --quant 4bit   (reads the copy)

Keep a copy of a model with its decoder in 4 or 8 bits, in your data folder (SFVQA_DATA_DIR).
`ask --quant` then loads the copy, as long as it is of the same version of the model."""

Force = Annotated[bool, typer.Option("--force", metavar="", help="Replace a copy that is there already.")]
Bits = Annotated[Literal["4bit", "8bit"], typer.Option("--quant", metavar="NAME", help="4bit or 8bit.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A name from `sfvqa models list`.", show_default=False)]


def quantize(
    name: Name,
    quant: Bits = "4bit",
    force: Force = False,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the copy, and say where it is."""
    from sfvqa.cli.render import Notices
    from sfvqa.cli.screen import echo
    from sfvqa.cli.text import readable_size

    with Notices(quiet=quiet).waiting(f"Quantizing {name}"):
        from sfvqa.inference.quantize_copy import quantize_copy

        copy = quantize_copy(name, quant, device=device, force=force)
    made_of = copy.provenance
    if json:
        fields = {
            "schema_version": 1,
            "model": made_of.model,
            "revision": made_of.revision,
            "quantization": made_of.quantization,
            "folder": str(copy.folder),
            "size_bytes": copy.size_bytes,
        }
        typer.echo(jsonlib.dumps(fields))
    else:
        echo(f"{copy.folder}  ({made_of.model} in {made_of.quantization}, {readable_size(copy.size_bytes)})")
