"""Where a chat's lines come from: a pipe or file, a terminal that can do nothing, or one with line editing."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from sfvqa.errors import UsageError
from sfvqa.inference.question import LONGEST_TEXT

if TYPE_CHECKING:
    from sfvqa.cli.render import Notices

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
    from sfvqa.video.readers.standard_input import STANDARD_INPUT

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
