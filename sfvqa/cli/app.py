"""The app: its commands, `--version`, and the help that all of them share."""

from collections.abc import Callable
from typing import Annotated

import typer

import sfvqa
from sfvqa.cli import ask, cache, demo, doctor, frames, merge, models, report
from sfvqa.cli.batch import command as batch
from sfvqa.cli.chat import command as chat
from sfvqa.cli.option_groups import Command, compose
from sfvqa.cli.profile import command as profile

EXAMPLES = """\b
[bold]Examples[/bold]
  sfvqa demo
  sfvqa ask clip.mp4 "Which way does the circle move?"
  sfvqa ask clip.mp4 "What flashes?" "Describe the video." --json
  sfvqa chat clip.mp4
  sfvqa batch videos/ --question "What happens?" -o answers.jsonl
  sfvqa frames clip.mp4 --out sheet.png

Ask questions about video files on your own machine. Answers go to stdout, the rest to stderr."""

EXIT_CODES = """[bold]Exit codes[/bold]
  0  answered, also when there were warnings
  1  failed
  2  usage: an empty question, --frames 0, contradictions, a prompt too long
  3  the video or its subtitles are missing or cannot be read, or the range
     lies outside it
  4  the model is unknown, missing, corrupt or offline
  5  out of memory, or too little of it by the estimate
  6  a batch finished with failures
130  interrupted with Ctrl-C

[bold]Where options come from[/bold]
A flag comes before its SFVQA_… variable, the variable before config.toml in
the user's configuration folder. SFVQA_DEBUG=1 shows tracebacks."""

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
        typer.Option(
            "--version", callback=_print_version, is_eager=True, metavar="", help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


def _add(name: str, function: Callable[..., None], help_text: str, short_help: str, epilog: str | None = None) -> None:
    app.command(name, cls=Command, help=help_text, short_help=short_help, epilog=epilog)(compose(function))


_add("ask", ask.ask, ask.HELP, "Ask one or more questions about a video.", EXIT_CODES)
_add("chat", chat.chat, chat.HELP, "Talk about a video, question by question.", EXIT_CODES)
_add("batch", batch.batch, batch.HELP, "Ask questions about many videos.", EXIT_CODES)
_add("frames", frames.frames, frames.HELP, "Show which frames a model would see.", EXIT_CODES)
_add("merge", merge.merge, merge.HELP, "Make one file of records from several.", EXIT_CODES)
_add("report", report.report, report.HELP, "Say what became of a batch.", EXIT_CODES)
_add("profile", profile.profile, profile.HELP, "Measure where the time goes, by the number of frames.", EXIT_CODES)
_add("demo", demo.demo, demo.HELP, "Name the bundled videos and what to ask about them.")
app.add_typer(models.app, name="models", short_help="The models that can be asked.")
app.add_typer(cache.app, name="cache", short_help="The videos that are kept as the model saw them.")
_add("doctor", doctor.doctor, doctor.HELP, "Say what is here, what is wrong, and what would be used.")
