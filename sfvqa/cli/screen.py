"""Lines on stdout and stderr: safe on a terminal, as wide as it is, and live only where it can be."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import IO, TYPE_CHECKING, Any, TypeVar

import typer
from rich import progress
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sfvqa.errors import UsageError
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    from sfvqa.inference.answer import Answer


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
    """The width of the terminal that a stream writes to; None where it writes to none."""
    if not stream.isatty():
        return None
    if (asked := os.environ.get("COLUMNS", "")).isdecimal() and int(asked):
        return int(asked)
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    return _USUAL_COLUMNS


def wrap(text: str, width: int | None, hanging: int = 0) -> str:
    r"""Break each line at blanks, and indent what follows like the line, at least to column `hanging`.

    A word that is wider than the terminal, such as a path, stays whole.

    >>> print(wrap("model   tiny on the CPU\n  A line.", 16, hanging=8))
    model   tiny on
            the CPU
      A line.
    """
    if width is None:
        return text
    lines = []
    for line in text.split("\n"):
        start = max(hanging, len(line) - len(line.lstrip()))
        label, body = line[:start], line[start:]
        for begin, end in pairwise([0, *_breaks(body, max(width - start, 1)), len(body)]):
            lines.append(((" " * start if begin else label) + body[begin:end]).rstrip())
    return "\n".join(lines)


def _breaks(text: str, width: int) -> list[int]:
    """Where the words stand that begin a new line. Rich has this, but cuts words that are too wide."""
    breaks, line_begins, is_empty = [], 0, True
    for word in re.finditer(r"\S+", text):
        if not is_empty and cell_len(text[line_begins : word.end()]) > width:
            breaks.append(word.start())
            line_begins = word.start()
        is_empty = False
    return breaks


def echo(text: str, hanging: int = 0) -> None:
    """Write lines to stdout, as wide as it is."""
    sys.stdout.write(f"{wrap(text, columns_of(sys.stdout), hanging)}\n")
    sys.stdout.flush()


def print_json(document: Mapping[str, Any]) -> None:
    """Write an object to stdout in one line, in ASCII: safe on any terminal; `schema_version` is added."""
    sys.stdout.write(json.dumps({"schema_version": 1, **document}, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_line(console: Console, line: Text) -> None:
    """Write a line, or several, with colours."""
    columns = columns_of(console.file)  # rich takes every TERM=dumb for 80
    for whole in line.split("\n"):
        for part in whole.divide(_breaks(whole.plain, columns) if columns else []):
            part.rstrip()
            console.print(part, soft_wrap=True)


def can_ask() -> bool:
    """Whether somebody would see a question on stderr and could answer it on stdin, which may be closed."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def confirm(question: str, what: str, *, yes: bool) -> bool:
    """Ask, unless `yes`; UsageError without a terminal. `what` is the sentence on what is about to be done."""
    if yes:
        return True
    if not can_ask():
        raise UsageError(f"{what} There is no terminal on which to ask for confirmation.", "Add --yes.")
    return typer.confirm(question, err=True)


def agree_to_delete(size: str, what: str, notices: "Notices", *, yes: bool) -> None:
    """Say what is about to be deleted, and ask, as `confirm` does; exits where the answer is no."""
    if yes or can_ask():  # or the error says it
        notices.note(what)
    if not confirm(f"Delete {size}?", what, yes=yes):
        notices.note("Nothing was deleted.")
        raise typer.Exit(1)


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
                self._put(piece, self._columns)
        self._stream.flush()

    def close(self) -> None:
        """Write the rest; the stream stays open."""
        self._put(self._waiting, self._columns or 0)
        self._waiting = ""
        self._stream.flush()

    def _put(self, piece: str, columns: int) -> None:
        """A word and the blanks before it."""
        blanks = piece[: len(piece) - len(piece.lstrip())]
        if "\n" in blanks:
            self._line = piece.rpartition("\n")[2]
        elif self._line and cell_len(self._line + piece) > columns:
            piece = f"\n{piece.lstrip()}"
            self._line = piece[1:]
        else:
            self._line += piece
        self._stream.write(piece)


T = TypeVar("T")
_SHOWN_SECONDS = 0.005  # less is 0.00 s
_SPEED_SECONDS = 5.0  # downloading and checking take turns: what one did before the other says nothing of its speed
_STAGES = {
    "search": "Looking for cuts",
    "read": "Reading frames",
    "encode": "Encoding frames",
    "download": "Downloading",
    "check": "Checking",
}


class Notices:
    """What the user is told beside the result, on stderr: some of it always, some with --verbose only.

    `live` says whether stderr is a terminal that can redraw a line: not a pipe, not TERM=dumb, whatever FORCE_COLOR
    says. Without it everything comes as plain lines, and progress not at all.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._is_watched = sys.stderr.isatty()
        self.live = not quiet and self._is_watched and not self._console.is_dumb_terminal
        self._warned: set[str] = set()

    def warn(self, text: str, *, again: bool = False) -> None:
        """One line that begins with "Warning:", of what makes an answer worth less: shown when `quiet` too.

        The same warning comes once a run, unless it happened `again`.
        """
        if again or text not in self._warned:
            self._warned.add(text)
            print_line(self._console, Text.assemble(("Warning: ", "yellow"), printable_line(text)))

    def note(self, text: str) -> None:
        """One line of what was asked for and is not the result itself; not when `quiet`."""
        if not self.quiet:
            self._print(text)

    def hint(self, text: str, *, style: str = "dim") -> None:
        """One line for whoever watches a terminal; in a pipe it would stand in the way, unless `verbose`."""
        if self.verbose or (self._is_watched and not self.quiet):
            self._print(text, style)

    def detail(self, text: str) -> None:
        """One line for --verbose only."""
        if self.verbose:
            self._print(text)

    def _print(self, text: str, style: str = "dim") -> None:
        print_line(self._console, Text(printable_line(text), style=style))

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner while the block runs; it leaves no trace."""
        if not self.live:
            yield
            return
        with self._console.status(Text(printable_line(text), style="dim")):
            yield

    def follow(self, steps: "Generator[Any, None, T]", *, in_bytes: bool = False) -> T:
        """Run steps to the end under bars that leave no trace, and return what they return.

        A step has a `stage`, and how much of it is through: `done` of `total` frames, or `done_bytes` of `total_bytes`.
        """
        suffix = "_bytes" if in_bytes else ""
        with contextlib.closing(steps), self._bars(in_bytes=in_bytes) as bars:
            tasks: dict[str, progress.TaskID] = {}
            opening = bars.add_task("Opening the video", total=None, visible=not in_bytes)
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    result: T = end.value
                    return result
                done, total = getattr(step, f"done{suffix}"), getattr(step, f"total{suffix}")
                bars.update(opening, visible=False)
                if step.stage not in tasks:
                    # What was here before the run counts for no speed: it is there when the task begins.
                    name = _STAGES.get(step.stage, step.stage)
                    tasks[step.stage] = bars.add_task(name, completed=done if in_bytes else 0, total=total)
                for stage, task in tasks.items() if in_bytes else ():
                    bars.update(task, visible=stage == step.stage)
                bars.update(tasks[step.stage], completed=done, total=total)

    def _bars(self, *, in_bytes: bool) -> progress.Progress:
        counts: tuple[progress.ProgressColumn, ...] = (
            (progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
            if in_bytes
            else (progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
        )
        return progress.Progress(
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}"),
            progress.BarColumn(bar_width=20 if in_bytes else 40),
            *counts,
            console=self._console,
            transient=True,
            disable=not self.live,
            speed_estimate_period=_SPEED_SECONDS,
        )

    def timings(self, answers: "Sequence[Answer]") -> None:
        """Where the time went: in a line or, with --verbose, as a table, in plain lines where that is too wide."""
        if not answers:
            return
        if not self.verbose:
            total = sum(answer.timings.total_seconds for answer in answers)
            self.hint(f"First token after {answers[0].timings.ttft_seconds:.2f} s, {total:.2f} s in all.")
            return
        has_overlap = any(answer.timings.overlap_seconds >= _SHOWN_SECONDS for answer in answers)
        rows = [_timing_cells(answer, has_overlap=has_overlap) for answer in answers]
        table = Table(box=None, header_style="dim", style="dim", pad_edge=False, padding=(0, 2, 0, 0))
        for name in rows[0]:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(*row.values())
        unlimited = self._console.options.update(max_width=1000)
        if self.live and self._console.measure(table, options=unlimited).maximum <= self._console.width:
            self._console.print()
            self._console.print(table)
        else:
            for row in rows:
                self.detail("Timings: " + ", ".join(f"{name} {value}" for name, value in row.items()))


def _timing_cells(answer: "Answer", *, has_overlap: bool) -> dict[str, str]:
    """The cells of one row by their column; what reading and encoding did at the same time counts in both of them."""
    timings, tokens = answer.timings, f"{answer.tokens.new}"
    seconds = {
        "load": timings.load_seconds,
        "read": timings.read_seconds,
        "encode": timings.encode_seconds,
        **({"at the same time": timings.overlap_seconds} if has_overlap else {}),
        "prefill": timings.prefill_seconds,
        "first token": timings.ttft_seconds,
        "decode": timings.decode_seconds,
        "total": timings.total_seconds,
    }
    if timings.tokens_per_second is not None:
        tokens += f" ({timings.tokens_per_second:.1f}/s)"
    memory = {"memory": readable_size(answer.peak_memory_bytes)} if answer.peak_memory_bytes else {}
    return {name: f"{value:.2f} s" for name, value in seconds.items()} | {"tokens": tokens} | memory
