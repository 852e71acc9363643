"""The commands that can be typed in a chat: their names, their help, and how a line becomes one."""

import contextlib
import difflib
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from sfvqa.cli import exits
from sfvqa.cli.chat.conversation import AnswerStopped, TranscriptWriter, describe_context, describe_times
from sfvqa.cli.describe import describe_encoded
from sfvqa.cli.interrupts import ChatInterrupts, chat_interrupts
from sfvqa.cli.options import parse_file
from sfvqa.cli.print_answers import write_object
from sfvqa.cli.terminal import columns_of, printable, wrap
from sfvqa.errors import ExitCode, UsageError
from sfvqa.inference.question import LONGEST_TEXT

if TYPE_CHECKING:
    from sfvqa.cli.chat.conversation import Conversation
    from sfvqa.cli.notices import Notices


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


PROMPT = "> "
_LONGEST_LINE = LONGEST_TEXT + 1000  # and white space around it


class LineSource(Protocol):
    """Gives a line at a time; `is_terminal` says whether someone is typing them."""

    is_terminal: bool

    def read(self) -> str | None:
        """The next line, None at the end; KeyboardInterrupt for Ctrl-C on an empty line."""
        ...


class PipedLines:
    """Every line of a pipe or file; no prompt."""

    is_terminal = False

    def __init__(self, source: TextIO) -> None:
        # What is no UTF-8 is spelt as in arguments, so that it fails as a question, not as an input.
        if reconfigure := getattr(source, "reconfigure", None):
            reconfigure(errors="surrogateescape")
        self._source = source

    def read(self) -> str | None:
        """The next line."""
        line = self._source.readline(_LONGEST_LINE)
        if len(line) == _LONGEST_LINE and not line.endswith("\n"):
            self._pass_over()
        return line.removeprefix("\ufeff").rstrip("\n") if line else None

    def _pass_over(self) -> None:
        """Skip the rest of a line that has no end, instead of holding it; what was held fails as a question."""
        while (piece := self._source.readline(_LONGEST_LINE)) and not piece.endswith("\n"):
            pass


class PlainPrompt(PipedLines):
    """A terminal without cursor movement, such as Emacs's shell: a prompt, and the editing that the system offers."""

    is_terminal = True

    def __init__(self, source: TextIO, screen: TextIO) -> None:
        super().__init__(source)
        self._screen = screen

    def read(self) -> str | None:
        """Show the prompt and wait for a line."""
        self._screen.write(PROMPT)
        self._screen.flush()
        line = None
        try:
            line = super().read()
        finally:
            if line is None:
                self._screen.write("\n")  # after ^C or ^D: what comes must not stick to the prompt
        return line


def check_standard_input(video: Path) -> None:
    """UsageError when the questions cannot come from there: it is closed, or it is to be the video."""
    from sfvqa.video.readers.local_file import STANDARD_INPUT

    if str(video) == STANDARD_INPUT:
        raise UsageError(
            "Standard input cannot be both the video and the questions.", "Save the video to a file and give its path."
        )
    if sys.stdin is None:
        raise UsageError("No question can be read: standard input is closed.", "Connect it to a terminal or a file.")


def open_lines(notices: "Notices") -> LineSource:
    """The lines of standard input. The prompt is shown on stderr, on stdout only if that alone is a terminal."""
    if not sys.stdin.isatty():
        return PipedLines(sys.stdin)
    from prompt_toolkit.utils import is_dumb_terminal

    screen = next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)
    if screen is None or is_dumb_terminal():
        return PlainPrompt(sys.stdin, sys.stderr)
    from sfvqa.cli.chat.prompt import EditedLines

    return EditedLines(sys.stdin, screen, notices)


class ChatLoop:
    """Goes through the lines to the end or to /quit.

    A line that fails is said and costs nothing else. What commands show goes to stdout like answers, but to stderr
    where stdout is kept for those alone (--json, --quiet).
    """

    def __init__(self, conversation: "Conversation", lines: "LineSource", notices: "Notices", *, json: bool) -> None:
        self._conversation = conversation
        self._lines = lines
        self._notices = notices
        self._json = json
        self._transcripts = TranscriptWriter()
        self._first_failure = ExitCode.OK

    def run(self) -> int:
        """The exit code: that of the first line that failed, where nobody was there to see it fail."""
        self._conversation.say_if_full()
        if not self._lines.is_terminal:
            self._run_to_the_end()
            return self._first_failure
        self._notices.note("Ask something; /help says what else can be typed, Ctrl-D leaves.")
        with chat_interrupts() as interrupts:
            while self._run_step(interrupts):
                pass
        return ExitCode.OK

    def _run_to_the_end(self) -> None:
        """Lines of a pipe; Ctrl-C ends the command, as it does any other."""
        while (line := self._lines.read()) is not None:
            try:
                if not self._take(line):
                    return
            except Exception as error:  # noqa: BLE001  what it is does not matter, the next line may be better
                self._report(error, line)

    def _run_step(self, interrupts: ChatInterrupts) -> bool:
        """One line of a terminal; False when it was the last."""
        try:
            with interrupts.step():
                line = self._lines.read()
        except KeyboardInterrupt:
            self._notices.note("Ctrl-D or /quit leaves.")
            return True
        if line is None:
            return False
        try:
            with interrupts.step():
                return self._take(line)
        except KeyboardInterrupt as stop:
            self._say_stopped(stop)
        except Exception as error:  # noqa: BLE001  the chat goes on
            if interrupts.seen:  # a library made an error of the KeyboardInterrupt
                self._say_stopped(KeyboardInterrupt())
            else:
                self._report(error, line)
        return True

    def _take(self, line: str) -> bool:
        """Ask the line or do what it says; False to leave."""
        typed = parse_command(line)
        if typed is not None:
            return self._do(typed)
        if line.strip():
            self._conversation.ask(line.strip())
        return True

    def _do(self, typed: Typed) -> bool:
        conversation = self._conversation
        match typed.name:
            case "/frames":
                encoded = conversation.chat.encoded
                assert encoded is not None
                self._show(describe_encoded(encoded, conversation.opener.sampling))
                self._show(describe_times(encoded.timestamps_seconds))
            case "/open":
                conversation.open(typed.path)
            case "/reset":
                conversation.reset()
            case "/save":
                self._save(typed)
            case "/context":
                self._show(describe_context(conversation.chat))
            case "/help":
                self._show(describe_commands())
            case "/quit":
                return False
        return True

    def _save(self, typed: Typed) -> None:
        conversation = self._conversation
        encoded = conversation.chat.encoded
        assert encoded is not None
        facts = describe_encoded(encoded, conversation.opener.sampling)
        self._transcripts.save(typed.path, encoded.video.path.name, facts, conversation.answers)
        self._notices.note(f"The conversation is written to {typed.path}.")

    def _show(self, text: str) -> None:
        """What a command was asked for, in lines that fit the terminal."""
        out = sys.stderr if self._json or self._notices.quiet else sys.stdout
        out.write(f"{wrap(printable(text), columns_of(out))}\n")
        out.flush()

    def _say_stopped(self, stop: KeyboardInterrupt) -> None:
        with contextlib.suppress(OSError):
            if sys.stderr.isatty():
                sys.stderr.write("\n")  # ends the line that holds ^C, and with it an answer that was being written
        if not isinstance(stop, AnswerStopped):
            self._notices.note("Stopped; nothing has changed.")
            return
        if self._json:
            write_object(stop.answer)
        if stop.is_kept:
            self._notices.note("Stopped; what came of the answer is part of the conversation.")
        else:
            self._notices.note("Stopped before anything came; the question is not part of the conversation.")

    def _report(self, error: Exception, line: str) -> None:
        """Say what failed; of a question, with --json, as the object that stands in for its answer."""
        if isinstance(error, BrokenPipeError):
            raise error  # nobody is listening any more
        exit_code = exits.report(error, as_json=self._json and not line.startswith("/"))
        self._first_failure = self._first_failure or ExitCode(exit_code)
