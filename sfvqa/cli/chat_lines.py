"""Where the lines of a chat come from: a pipe, a plain prompt, or an edited line with history and completion."""

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.output import create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.utils import is_dumb_terminal

from sfvqa.cli.chat_loop import COMMANDS, NAMES
from sfvqa.inference.question import LONGEST_TEXT

if TYPE_CHECKING:
    from sfvqa.cli.screen import Notices

PROMPT = "> "
_LONGEST_LINE = LONGEST_TEXT + 1000  # and white space around it


def open_lines(notices: "Notices") -> "PipedLines | EditedLines":
    """The lines of standard input. The prompt is shown on stderr, on stdout only if that alone is a terminal."""
    if not sys.stdin.isatty():
        return PipedLines(sys.stdin)
    screen = next((stream for stream in (sys.stderr, sys.stdout) if stream.isatty()), None)
    is_lost = os.name == "nt" and not sys.stdout.isatty()  # prompt_toolkit draws on standard output's console there
    if screen is None or is_lost or is_dumb_terminal():
        return PlainPrompt(sys.stdin, sys.stderr)
    return EditedLines(sys.stdin, screen, notices)


class PipedLines:
    """Every line of a pipe or file; no prompt."""

    is_terminal = False

    def __init__(self, source: TextIO) -> None:
        # What is no UTF-8 is spelt as in arguments, so that it fails as a question, not as an input.
        if reconfigure := getattr(source, "reconfigure", None):
            reconfigure(errors="surrogateescape")
        self._source = source

    def read(self) -> str | None:
        """The next line, None at the end."""
        line = piece = self._source.readline(_LONGEST_LINE)
        while len(piece) == _LONGEST_LINE and not piece.endswith("\n"):
            piece = self._source.readline(_LONGEST_LINE)  # no more of it is held; what is, fails as a question
        return line.removeprefix("\ufeff").rstrip("\n") if line else None


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


class EditedLines:
    """Line editing on the terminal that `keyboard` and `screen` are: arrows, history, Tab, Ctrl-Z."""

    is_terminal = True

    def __init__(self, keyboard: TextIO, screen: TextIO, notices: "Notices") -> None:
        output = create_output(stdout=screen)
        if isinstance(output, Vt100_Output):  # some terminals never say where the cursor is, others so late that it
            output.enable_cpr = False  # ends up as text
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=_history(notices),
            completer=SlashCompleter(),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_suspend=True,
            input=create_input(keyboard),
            output=output,
        )

    def read(self) -> str | None:
        """The next line, None at the end. Ctrl-C clears what is there; where nothing is, it is the caller's."""
        while True:
            try:
                return self._session.prompt()
            except EOFError:
                return None
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise


class SlashCompleter(Completer):
    """Names of commands, and paths behind those that take one; nothing in a question."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """What may stand where the cursor is."""
        typed = document.text_before_cursor
        name, blank, behind = typed.partition(" ")
        if blank and COMMANDS.get(name.lower(), ("", ""))[0]:  # it takes a path
            path = behind.lstrip().lstrip("'\"")
            yield from self._paths.get_completions(Document(path), complete_event)
        elif typed.startswith("/") and not blank:
            for name in NAMES:
                if name.startswith(typed.lower()):
                    yield Completion(name, start_position=-len(typed))


class _KeptHistory(FileHistory):
    """A history file; a line that cannot be written there is a warning."""

    def __init__(self, path: Path, notices: "Notices") -> None:
        super().__init__(path)
        self._notices = notices

    def store_string(self, string: str) -> None:
        """Append a line to the file."""
        try:
            super().store_string(string)
        except OSError as error:
            _warn(self._notices, Path(os.fsdecode(self.filename)), error)


def _history(notices: "Notices") -> History:
    """What SFVQA_HISTORY names, nothing lasting where that is empty, else a file in the user's folder for states."""
    override = os.environ.get("SFVQA_HISTORY")
    if override == "":
        return InMemoryHistory()
    default = Path(platformdirs.user_state_dir("sfvqa", appauthor=False)) / "chat_history"
    path = default if override is None else Path(override).expanduser()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "it is not a file")
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # for this user's eyes only
    except OSError as error:
        _warn(notices, path, error)
        return InMemoryHistory()
    return _KeptHistory(path, notices)


def _warn(notices: "Notices", path: Path, error: OSError) -> None:
    reason = error.strerror or str(error)
    notices.warn(f"The history cannot be kept in {path}: {reason}. SFVQA_HISTORY names another file, or none.")
