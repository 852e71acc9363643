"""`sfvqa models`: what can be asked, what it takes, and what of it is on this machine. One file a command."""

import typer

from sfvqa.cli.models import info, list_models, pull, quantize, remove, verify

HELP = """\b
[bold]Examples[/bold]
  sfvqa models list
  sfvqa models info slowfast-7b-64f
  sfvqa models pull slowfast-7b-64f
  sfvqa models verify slowfast-7b-64f
  sfvqa models quantize slowfast-7b-64f ./7b-4bit
  sfvqa models remove slowfast-7b-64f

The models that `sfvqa ask --model NAME` knows by name. A checkpoint folder can be given by its path as well."""

app = typer.Typer(help=HELP, no_args_is_help=True)
app.command("list", help=list_models.HELP, short_help="List the models, and which are on this machine.")(
    list_models.list_models
)
app.command("info", help=info.HELP, short_help="Say what a model is, and what memory it takes.")(info.info)
app.command("pull", help=pull.HELP, short_help="Download a model, or what is missing of it.")(pull.pull)
app.command("verify", help=verify.HELP, short_help="Check a model's files against their hashes.")(verify.verify)
app.command("path", help=list_models.PATH_HELP, short_help="Print the folder a model is in.")(list_models.path)
app.command("remove", help=remove.HELP, short_help="Delete a downloaded model.")(remove.remove)
app.command("quantize", help=quantize.HELP, short_help="Write a model in 4 or 8 bits to a folder.")(quantize.quantize)
