"""The app: its commands, `--version`, and the help that all of them share."""

from typing import Annotated

import typer

import sfvqa
from sfvqa.cli import ask, cache, chat, demo, doctor, frames, merge, models, profile, report
from sfvqa.cli.batch import command as batch
from sfvqa.cli.options import Command, compose

EXAMPLES = """\b
[bold]Examples[/bold]
  sfvqa demo
  sfvqa ask clip.mp4 "Which way does the circle move?"
  sfvqa ask clip.mp4 "What flashes?" "Describe the video." --json
  sfvqa chat clip.mp4
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl
  sfvqa frames clip.mp4 --out sheet.png

Ask questions about video files on your own machine. Answers go to stdout,
everything else to stderr."""

EXIT_CODES = """[bold]Exit codes[/bold]
  0  answered, possibly with warnings
  1  failed
  2  usage error: an empty question, --frames 0, contradictory options,
     a prompt that is too long
  3  the video or its subtitles are missing or cannot be read, or the range
     lies outside the video
  4  the model is unknown, missing, corrupt, or the hub cannot be reached
  5  out of memory, or too little memory by the estimate
  6  a batch finished with failures
130  interrupted with Ctrl-C

[bold]Where options come from[/bold]
A flag overrides its SFVQA_… variable, which overrides config.toml in the
user's configuration folder. SFVQA_DEBUG=1 shows tracebacks."""

app = typer.Typer(
    name="sfvqa",
    help=EXAMPLES,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfvqa {sfvqa.__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, metavar="", help="Print the version."),
    ] = False,
) -> None:
    """Options that stand before any command."""


for _name, _command, _help, _short_help, _epilog in (
    ("ask", ask.ask, ask.HELP, "Ask one or more questions about a video.", EXIT_CODES),
    ("chat", chat.chat, chat.HELP, "Talk about a video, question by question.", EXIT_CODES),
    ("batch", batch.batch, batch.HELP, "Ask questions about many videos.", EXIT_CODES),
    ("frames", frames.frames, frames.HELP, "Show the frames that a model would see.", EXIT_CODES),
    ("merge", merge.merge, merge.HELP, "Merge several files of records into one.", EXIT_CODES),
    ("report", report.report, report.HELP, "Summarize a batch.", EXIT_CODES),
    ("profile", profile.profile, profile.HELP, "Measure where the time goes, by number of frames.", EXIT_CODES),
    ("demo", demo.demo, demo.HELP, "List the bundled videos, with questions to ask.", None),
    ("doctor", doctor.doctor, doctor.HELP, "Check the installation, and say which model would be used.", None),
):
    app.command(_name, cls=Command, help=_help, short_help=_short_help, epilog=_epilog)(compose(_command))
app.add_typer(models.app, name="models", short_help="Manage the models.")
app.add_typer(cache.app, name="cache", short_help="Manage the encoded videos.")
