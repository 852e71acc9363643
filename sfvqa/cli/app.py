"""The app: its commands, `--version`, and the help that all of them share."""

import importlib
from typing import Annotated

import typer

import sfvqa
from sfvqa.cli.options import Command, compose, configurable

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
  0  success, possibly with warnings
  1  any other failure
  2  usage error: an empty question, --frames 0, contradictory options,
     a prompt that is too long, a file other than the video (questions,
     subtitles, a manifest, records) that is missing or of another kind
  3  the video is missing or cannot be read, or the range lies outside it
  4  the model is unknown, missing, or corrupt, or the hub cannot be reached
  5  out of memory, or not enough memory by the estimate
  6  a batch finished with failures
130  interrupted with Ctrl-C

[bold]Where options come from[/bold]
A flag overrides its SFVQA_… variable, which overrides config.toml in the
user's configuration folder. SFVQA_DEBUG=1 shows tracebacks."""

_COMMANDS = {
    "ask": ("ask", "Ask one or more questions about a video.", EXIT_CODES),
    "chat": ("chat", "Talk about a video, question by question.", EXIT_CODES),
    "serve": ("serve", "Keep a model loaded, for other programs and a page.", EXIT_CODES),
    "mcp": ("mcp", "Let other models ask about videos, over MCP.", EXIT_CODES),
    "batch": ("batch.command", "Ask questions about many videos.", EXIT_CODES),
    "find": ("find", "Find the moments of a long video that show something.", EXIT_CODES),
    "caption": ("caption", "Write captions beside videos.", EXIT_CODES),
    "transcribe": ("transcribe", "Write down what is said in videos.", EXIT_CODES),
    "frames": ("frames", "Show the frames that a model would see.", EXIT_CODES),
    "merge": ("merge", "Merge several files of records into one.", EXIT_CODES),
    "report": ("report", "Summarise a batch.", EXIT_CODES),
    "profile": ("profile", "Measure where the time goes, by number of frames.", EXIT_CODES),
    "demo": ("demo", "List the bundled videos and questions to ask about them.", None),
    "doctor": ("doctor", "Check the installation and show which model would be used.", None),
    "models": ("models", "Manage the models.", None),
    "cache": ("cache", "Manage the video cache.", None),
}
"""The module of each command, which has a function of the command's name and HELP, or an app of its own."""


def build_app(only: str = "") -> typer.Typer:
    """The app with all commands, or with one of them: then the modules of the others are not imported."""
    app = typer.Typer(
        name="sfvqa",
        help=EXAMPLES,
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(main_options)
    for name in [only] if only in _COMMANDS else _COMMANDS:
        module_name, short_help, epilog = _COMMANDS[name]
        module = importlib.import_module(f"sfvqa.cli.{module_name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, short_help=short_help)
        else:
            command = compose(getattr(module, name))
            app.command(name, cls=Command, help=module.HELP, short_help=short_help, epilog=epilog)(command)
    return app


def settings_of_commands() -> dict[str, list[str]]:
    """The options that can be set for good, by command."""
    return configurable(typer.main.get_command(build_app()))


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sfvqa {sfvqa.__version__}")
        raise typer.Exit


def main_options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, metavar="", help="Print the version."),
    ] = False,
) -> None:
    """Options that stand before any command."""
