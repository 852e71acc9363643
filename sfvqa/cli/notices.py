"""What the user is told on stderr beside the result: how much of it, and how far the work is."""

import contextlib
import sys
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from sfvqa.cli.terminal import print_line, printable_line
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    from sfvqa.inference.answer import Answer, Timings


T = TypeVar("T")
_SHOWN_SECONDS = 0.005  # less is 0.00 s
_STAGES = {"search": "Looking for cuts", "read": "Reading frames", "encode": "Encoding frames"}


class Progressing(Protocol):
    """A step of work on frames, in one stage of it."""

    @property
    def stage(self) -> str:
        """What is done with them."""

    @property
    def done(self) -> int:
        """Frames that are through."""

    @property
    def total(self) -> int:
        """Frames there are."""


class Notices:
    """What the user is told beside the result, on stderr, from what is always said to what is said with --verbose only.

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
        """One line that begins with "Warning:", of what makes an answer worth less: quiet does not mean not to know.

        The same warning comes once a run, unless it happened `again`.
        """
        if again or text not in self._warned:
            self._warned.add(text)
            print_line(self._console, Text.assemble(("Warning: ", "yellow"), printable_line(text)))

    def note(self, text: str) -> None:
        """One line of what was asked for and is not the result itself; not when `quiet`."""
        if not self.quiet:
            print_line(self._console, Text(printable_line(text), style="dim"))

    def hint(self, text: str, *, style: str = "dim") -> None:
        """One line for whoever watches a terminal; in a pipe it would stand in the way, unless `verbose`."""
        if self.verbose or (self._is_watched and not self.quiet):
            print_line(self._console, Text(printable_line(text), style=style))

    def detail(self, text: str) -> None:
        """One line of what only --verbose wants to know."""
        if self.verbose:
            print_line(self._console, Text(printable_line(text), style="dim"))

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner while the block runs; it leaves no trace."""
        if not self.live:
            yield
            return
        with self._console.status(Text(printable_line(text), style="dim")):
            yield

    def follow(self, steps: Generator[Progressing, None, T]) -> T:
        """Run reading, and encoding if any, to the end under bars that leave no trace; return what comes of it."""
        with contextlib.closing(steps):
            if not self.live:
                return _drain(steps)
            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bars:
                opening = bars.add_task("Opening the video", total=None)
                tasks: dict[str, TaskID] = {}
                try:
                    while True:
                        step = next(steps)
                        bars.update(opening, visible=False)
                        stage = step.stage
                        if stage not in tasks:
                            tasks[stage] = bars.add_task(_STAGES.get(stage, stage), total=step.total)
                        bars.update(tasks[stage], completed=step.done, total=step.total)
                except StopIteration as end:
                    result: T = end.value
                    return result

    def timings(self, answers: "Sequence[Answer]") -> None:
        """Where the time went: in a line or, with --verbose, as a table, in plain lines where that is too wide."""
        if not answers:
            return
        if not self.verbose:
            first = describe_seconds(answers[0].timings.ttft_seconds)
            total = describe_seconds(sum(answer.timings.total_seconds for answer in answers))
            self.hint(f"First token after {first}, {total} in all.")
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


def describe_seconds(seconds: float) -> str:
    """`0.79 s`."""
    return f"{seconds:.2f} s"


def _drain(steps: Generator[Progressing, None, T]) -> T:
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result


def _timing_cells(answer: "Answer", *, has_overlap: bool) -> dict[str, str]:
    """The cells of one row by their column; what read and encode did at the same time counts in both of them."""
    timings: Timings = answer.timings
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
    speed = timings.tokens_per_second
    cells = {name: describe_seconds(value) for name, value in seconds.items()}
    cells["tokens"] = f"{answer.tokens.new}" if speed is None else f"{answer.tokens.new} ({speed:.1f}/s)"
    if answer.peak_memory_bytes:
        cells["memory"] = readable_size(answer.peak_memory_bytes)
    return cells
