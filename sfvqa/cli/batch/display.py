"""What is shown on stderr while a batch runs: a few lines that are redrawn, or a plain line every few seconds."""

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sfvqa.batch.tally import ItemFinished, Working
from sfvqa.cli.batch.words import describe_rate, describe_stages, describe_tally
from sfvqa.cli.text import printable_line

if TYPE_CHECKING:
    from collections.abc import Generator

    from sfvqa.batch.tally import BatchEvent, BatchSummary, Tally
    from sfvqa.cli.render import Notices

    Events = Generator[BatchEvent, None, BatchSummary]

SECONDS_BETWEEN_LINES = 5.0
_REDRAWS_A_SECOND = 4
_NUM_LAST = 5  # items shown under the numbers
_WIDEST_BAR = 60


class Display(Protocol):
    """Shows a batch while it runs; `so_far` is how far it came, in words."""

    @property
    def so_far(self) -> str:
        """Also when it was interrupted."""

    def follow(self, events: "Events") -> "BatchSummary":
        """Run it to its end."""


def make_display(notices: "Notices") -> Display:
    """Live where the terminal can be redrawn, else plain; none where nothing is to be said."""
    return LiveDisplay() if notices.live else PlainDisplay(notices)


class _Following(ABC):
    def __init__(self) -> None:
        self._tally: Tally | None = None

    @property
    def so_far(self) -> str:
        """How far it came."""
        return "Nothing was answered." if self._tally is None else f"{describe_tally(self._tally)}."

    def _run(self, events: "Events") -> "BatchSummary":
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                summary: BatchSummary = end.value
                return summary
            self._tally = event.tally
            self._show(event)

    @abstractmethod
    def _show(self, event: "BatchEvent") -> None:
        """Say what of it is worth a line."""


class PlainDisplay(_Following):
    """A line at most every few seconds, and one for each failure."""

    def __init__(self, notices: "Notices") -> None:
        super().__init__()
        self._notices = notices
        self._said_at = time.monotonic()

    def follow(self, events: "Events") -> "BatchSummary":
        """Run it to its end."""
        return self._run(events)

    def _show(self, event: "BatchEvent") -> None:
        if isinstance(event, ItemFinished) and event.record["status"] == "error":
            self._notices.note(f"Failed: {event.item.name}: {event.item.question} {event.record['error']['message']}")
        if isinstance(event, Working) and event.notice:
            self._notices.warn(event.notice, again=True)
        if time.monotonic() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            tally = event.tally
            self._notices.note(f"{describe_tally(tally)}; {describe_rate(tally)}; {describe_stages(tally)}")


class LiveDisplay(_Following):
    """A bar, the numbers and the last answers, redrawn quietly; nothing of it stays."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._last: deque[Text] = deque(maxlen=_NUM_LAST)

    def follow(self, events: "Events") -> "BatchSummary":
        """Run it to its end."""
        with Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=_REDRAWS_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            return self._run(events)

    def render(self) -> RenderableType:
        """What stands there now; every line is cut to the width of the terminal."""
        tally = self._tally
        if tally is None:
            return Text("Starting to read", style="dim")
        bar = Table.grid()  # by itself it would not end its line
        width = min(_WIDEST_BAR, self._console.width)
        bar.add_row(ProgressBar(total=max(tally.num_items, 1), completed=tally.num_items - tally.num_left, width=width))
        rows: list[RenderableType] = [
            bar,
            _line(describe_tally(tally)),
            _line(describe_rate(tally), "dim"),
            _line(describe_stages(tally), "dim"),
        ]
        room = max(self._console.height - len(rows) - 1, 0)
        return Group(*rows, *list(self._last)[-room:] if room else ())

    def _show(self, event: "BatchEvent") -> None:
        if isinstance(event, Working):
            if event.notice:
                self._console.print(Text.assemble(("Warning: ", "yellow"), printable_line(event.notice)))
            return
        is_answered = event.record["status"] == "ok"
        said = event.record["answer"] if is_answered else event.record["error"]["message"]
        line = _line(f"{event.item.name}: {event.item.question} ")
        line.append(printable_line(said), style="bold" if is_answered else "red")
        self._last.append(line)


def _line(text: str, style: str = "") -> Text:
    return Text(printable_line(text), style=style, no_wrap=True, overflow="ellipsis")
