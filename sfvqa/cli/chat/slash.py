"""The commands that can be typed in a chat: their names, their help, and how a line becomes one."""

import difflib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from sfvqa.cli.options import parse_file
from sfvqa.errors import UsageError


@dataclass(frozen=True)
class SlashCommand:
    """A command; `argument` names what has to stand behind it, empty where nothing may."""

    name: str
    argument: str
    help: str


COMMANDS = (
    SlashCommand("/frames", "", "Say which frames of the video the model sees."),
    SlashCommand("/open", "VIDEO", "Go on with another video; the conversation begins anew."),
    SlashCommand("/reset", "", "Forget the conversation, keep the video."),
    SlashCommand("/save", "FILE", "Write the conversation to a file, as JSON if it ends in .json, else as Markdown."),
    SlashCommand("/context", "", "Say how full the conversation is."),
    SlashCommand("/help", "", "Say this."),
    SlashCommand("/quit", "", "Leave; so do /exit and Ctrl-D."),
)
_OTHER_NAMES = {"/exit": "/quit"}
NAMES = (*(command.name for command in COMMANDS), *_OTHER_NAMES)
_LONGEST_COMMAND = 10_000
HINT = "A question that begins with a slash needs a space before it."


@dataclass(frozen=True)
class Typed:
    """A command as it was typed."""

    name: str
    argument: str

    @property
    def path(self) -> Path:
        """The argument as a path: as it stands if that is there, else without quotes and backslashes; ~ is home.

        >>> Typed("/open", "'my clip.mp4'").path.name
        'my clip.mp4'
        """
        as_it_stands = _with_home(self.argument)
        if os.path.lexists(as_it_stands):
            return as_it_stands
        try:
            words = shlex.split(self.argument)
        except ValueError:  # a quotation mark on its own
            return as_it_stands
        return _with_home(words[0]) if len(words) == 1 and words[0] else as_it_stands


def parse_command(line: str) -> Typed | None:
    """The command of a line, None for a question; UsageError for no command of ours, or one used wrongly."""
    if not line.startswith("/"):
        return None
    if len(line) > _LONGEST_COMMAND:
        raise UsageError(f"The command {line[:10]}… has more than {_LONGEST_COMMAND:,} characters.", HINT)
    word, *behind = line.strip().split(maxsplit=1)
    name, argument = _OTHER_NAMES.get(word.lower(), word.lower()), "".join(behind)
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        near = difflib.get_close_matches(name, NAMES, n=1)
        raise UsageError(
            f"There is no command {word}.", f"{f'Did you mean {near[0]}?' if near else 'See /help.'} {HINT}"
        )
    if command.argument and not argument:
        raise UsageError(f"{name} needs a {command.argument}.", f"Type {name} {command.argument}.")
    if argument and not command.argument:
        raise UsageError(f"{name} takes nothing behind it.", f"Type {name} alone. {HINT}")
    return Typed(name, argument)


def _with_home(text: str) -> Path:
    path = parse_file(text)
    try:
        return path.expanduser()
    except RuntimeError:  # nobody has that name, so that the tilde is part of one
        return path


def describe_commands() -> str:
    """What /help shows."""
    usages = [f"{command.name} {command.argument}".rstrip() for command in COMMANDS]
    width = max(map(len, usages))
    rows = [f"{usage:<{width}}  {command.help}" for usage, command in zip(usages, COMMANDS, strict=True)]
    return "\n".join([*rows, f"Anything else is a question. {HINT}", "Ctrl-C stops an answer, or clears the line."])
