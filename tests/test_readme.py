"""The README tells the truth: its commands are run where that takes seconds, and parsed where it does not."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sfvqa.cli.app import app
from tests.readme import README, Command, commands

ROOT = README.parent
SFVQA = [command for command in commands() if command.words[0] == "sfvqa"]
MODULES = [command for command in commands() if command.line.startswith("python -m sfvqa.")]
NEEDS_MORE = ("slowfast-7b", "my-")
"""Words of commands that need weights or files nobody has here: these are parsed, not run."""


def can_run(command: Command) -> bool:
    return not any(word in command.line for word in NEEDS_MORE)


def by_line(command: Command) -> str:
    return command.line


def test_the_first_two_commands_are_the_ones_that_ci_runs() -> None:
    first, second = commands()[:2]
    assert ".venv/bin/sfvqa ask sfvqa/assets/demo/" in first.line
    assert "'.[test]' && .venv/bin/python -m pytest" in second.line


def test_every_command_is_one_of_the_kinds_tested_here() -> None:
    tested = [*commands()[:2], *SFVQA, *MODULES]
    needing_no_test = ("python -m pytest", "hf download", ". .venv/bin/activate")
    others = [command.line for command in commands() if command not in tested]
    assert all(line.startswith(needing_no_test) for line in others), others


@pytest.mark.parametrize("command", SFVQA, ids=by_line)
def test_sfvqa_commands_parse(command: Command) -> None:
    click_command = typer.main.get_command(app)
    args = command.words[1:]
    while hasattr(click_command, "commands"):
        name = args.pop(0)
        if name.startswith("-"):
            return
        click_command = click_command.commands[name]
    assert click_command.make_context("sfvqa", args).command is click_command


@pytest.mark.parametrize("command", [c for c in SFVQA if can_run(c)], ids=by_line)
def test_sfvqa_commands_run_and_print_what_the_transcript_shows(command: Command) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sfvqa", *command.words[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    shown = without_seconds(command.output)
    for line in without_seconds(done.stdout).splitlines() if command.output else []:
        assert line in shown, f"the README does not show {line!r}"


def without_seconds(text: str) -> str:
    """Leave out what differs from run to run: seconds, speeds, memory, folders."""
    return re.sub(r"[\d.,]+( s|/s| MB| GB)|/\S+/sfvqa/assets", "…", text)


@pytest.mark.parametrize("command", MODULES, ids=by_line)
def test_module_commands_parse(command: Command) -> None:
    module = importlib.import_module(command.words[2])
    options = vars(module.parse_arguments(command.words[3:]))
    flags = [word.removeprefix("--").replace("-", "_") for word in command.words[3:] if word.startswith("--")]
    assert set(flags) <= options.keys()


def test_pictures_exist() -> None:
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README.read_text(encoding="utf-8"))
    assert pictures
    assert all((ROOT / Path(picture)).is_file() for picture in pictures)
