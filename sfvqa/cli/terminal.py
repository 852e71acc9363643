"""Text that is safe on a terminal: what a model or a file name says never moves the cursor or changes colours."""

import contextlib
import os
import re
import sys
from itertools import pairwise
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


# C0 and C1 controls, DEL, line and paragraph separators, marks and overrides of direction, and lone surrogates (how
# Python spells the bytes of a file name that are not UTF-8). The zero-width joiner stays: emoji need it.
_UNSAFE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_UNSAFE_IN_TEXT = re.compile(f"[{_UNSAFE}]")
_UNSAFE_IN_LINE = re.compile(f"[{_UNSAFE}\t\n]")


def printable(text: str) -> str:
    r"""Spell out control characters as `\x1b`; newlines and tabs stay."""
    return _UNSAFE_IN_TEXT.sub(_spell_out, text)


def printable_line(text: str) -> str:
    r"""Spell out control characters as `\x1b`, newlines and tabs too: for names and questions inside a line."""
    return _UNSAFE_IN_LINE.sub(_spell_out, text)


def _spell_out(match: re.Match[str]) -> str:
    return ascii(match.group())[1:-1]


_USUAL_COLUMNS = 80
_WORDS = re.compile(r"\s*\S+|\s+$")


def columns_of(stream: IO[str]) -> int | None:
    """How wide the terminal is that a stream writes to; None where it writes to none."""
    if not stream.isatty():
        return None
    if (asked := os.environ.get("COLUMNS", "")).isdecimal() and int(asked):
        return int(asked)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS


def wrap(text: str, width: int | None, hanging: int = 0) -> str:
    r"""Break each line at blanks; what goes on below begins as the line does, and not before column `hanging`.

    A word that is wider than the terminal, a path for one, stays whole.

    >>> print(wrap("model   tiny on the CPU\n  A line.", 16, hanging=8))
    model   tiny on
            the CPU
      A line.
    """
    if width is None:
        return text
    return "\n".join(part for line in text.split("\n") for part in _wrap_line(line, width, hanging))


def echo(text: str, hanging: int = 0) -> None:
    """Write lines to stdout, as wide as it is."""
    sys.stdout.write(f"{wrap(text, columns_of(sys.stdout), hanging)}\n")
    sys.stdout.flush()


def print_line(console: "Console", line: "Text") -> None:
    """Write a line, or several, with colours."""
    columns = columns_of(console.file)  # rich takes every TERM=dumb for 80
    for whole in line.split("\n"):
        for part in whole.divide(_breaks(whole.plain, columns) if columns else []):
            part.rstrip()
            console.print(part, soft_wrap=True)


class WordWriter:
    """Writes text as it comes, broken between words on a terminal: the last word waits until its end is known."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._columns = columns_of(stream)
        self._line = ""
        self._waiting = ""

    def write(self, text: str) -> None:
        """Write what is complete."""
        if self._columns is None:
            self._stream.write(text)
        else:
            *complete, self._waiting = _WORDS.findall(self._waiting + text) or [""]
            for piece in complete:
                self._put(piece)
        self._stream.flush()

    def close(self) -> None:
        """Write the rest; the stream stays open."""
        self._put(self._waiting)
        self._waiting = ""
        self._stream.flush()

    def _put(self, piece: str) -> None:
        """A word and the blanks before it."""
        from rich.cells import cell_len

        blanks = piece[: len(piece) - len(piece.lstrip())]
        if "\n" in blanks:
            self._line = piece.rpartition("\n")[2]
        elif self._line and cell_len(self._line + piece) > (self._columns or 0):
            piece = f"\n{piece.lstrip()}"
            self._line = piece[1:]
        else:
            self._line += piece
        self._stream.write(piece)


def _wrap_line(line: str, width: int, hanging: int) -> list[str]:
    start = max(hanging, len(line) - len(line.lstrip()))
    label, body = line[:start], line[start:]
    borders = [0, *_breaks(body, max(width - start, 1)), len(body)]
    parts = [body[begin:end].rstrip() for begin, end in pairwise(borders)]
    return [part.rstrip() for part in (label + parts[0], *(" " * start + part for part in parts[1:]))]


def _breaks(text: str, width: int) -> list[int]:
    """Where the words stand that begin a new line."""
    from rich.cells import cell_len  # a character may take two columns, or none

    breaks, line_begins, is_empty = [], 0, True
    for word in re.finditer(r"\S+", text):
        if not is_empty and cell_len(text[line_begins : word.end()]) > width:
            breaks.append(word.start())
            line_begins = word.start()
        is_empty = False
    return breaks
