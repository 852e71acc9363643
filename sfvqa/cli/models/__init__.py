"""`sfvqa models`: what can be asked, what it takes, and what of it is on this machine. One file a command."""

import typer

from sfvqa.cli.models import info, list_models, quantize

HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models info slowfast-7b-64f

The models that `sfvqa ask --model NAME` knows by name. A checkpoint folder can be given by its path as well."""

app = typer.Typer(help=HELP, no_args_is_help=True)
app.command("list", help=list_models.HELP, short_help="List the models, and which are on this machine.")(
    list_models.list_models
)
app.command("quantize", help=quantize.HELP, short_help="Keep a copy of a model in 4 or 8 bits.")(quantize.quantize)
app.command("info", help=info.HELP, short_help="Say what a model is, and what memory it takes.")(info.info)
