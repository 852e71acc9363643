"""The file that keeps what was typed in chats, for this user's eyes only."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import platformdirs
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import create_input
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from sfvqa.cli.chat.loop import COMMANDS, NAMES, PROMPT

if TYPE_CHECKING:
    from sfvqa.cli.notices import Notices


def history_path() -> Path | None:
    """Where it is: what SFVQA_HISTORY says, None where that is empty, else in the user's folder for states."""
    override = os.environ.get("SFVQA_HISTORY")
    if override is None:
        return Path(platformdirs.user_state_dir("sfvqa", appauthor=False)) / "chat_history"
    return Path(override).expanduser() if override else None


def prepare_history(path: Path) -> None:
    """Make the file, with mode 0600, unless it is there. OSError when it cannot be read and written."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise OSError(errno.EINVAL, "it is no file") from None
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None


_TAKES_PATH = tuple(f"{command.name} " for command in COMMANDS if command.argument)


class EditedLines:
    """Line editing on the terminal that `keyboard` and `screen` are: arrows, history, Tab, Ctrl-Z."""

    is_terminal = True

    def __init__(self, keyboard: TextIO, screen: TextIO, notices: "Notices") -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            history=_history(notices),
            completer=SlashCompleter(),
            complete_while_typing=False,
            complete_style=CompleteStyle.READLINE_LIKE,
            enable_suspend=True,
            input=create_input(keyboard),
            output=_output_on(screen),
        )

    def read(self) -> str | None:
        """The next line. Ctrl-C clears what is there; where nothing is, it is the caller's."""
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
        if command := next((name for name in _TAKES_PATH if typed.lower().startswith(name)), None):
            path = typed[len(command) :].lstrip().lstrip("'\"")
            yield from self._paths.get_completions(Document(path), complete_event)
        elif typed.startswith("/") and " " not in typed:
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
    path = history_path()
    if path is None:
        return InMemoryHistory()
    try:
        prepare_history(path)
    except OSError as error:
        _warn(notices, path, error)
        return InMemoryHistory()
    return _KeptHistory(path, notices)


def _warn(notices: "Notices", path: Path, error: OSError) -> None:
    reason = error.strerror or str(error)
    notices.warn(f"What is typed cannot be kept in {path}: {reason}. SFVQA_HISTORY names another file, or none.")


def _output_on(screen: TextIO) -> Output:
    """Without asking the terminal where its cursor is: some never answer, and a slow one's answer ends up as text."""
    output = create_output(stdout=screen)
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output
