"""Runs a planned batch: how far it is, as a live display or in lines, and what became of it."""

import contextlib
import json as jsonlib
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sfvqa.batch.tally import ItemFinished, Tally, Working
from sfvqa.cli.screen import printable_line
from sfvqa.errors import JournalError
from sfvqa.wording import plural

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from sfvqa.batch.item import Item
    from sfvqa.batch.journal import Journal
    from sfvqa.batch.plan import BatchOptions
    from sfvqa.batch.tally import BatchEvent
    from sfvqa.cli.batch.command import PlannedBatch
    from sfvqa.cli.screen import Notices
    from sfvqa.errors import ExitCode

    Events = Generator[BatchEvent, None, Tally]


def describe_tally(tally: Tally) -> str:
    """`110 of 300 items answered, 4 failed, 5 answered before, 1 failed before, 180 left`."""
    parts = [f"{tally.num_answered:,} of {plural(tally.num_items, 'item')} answered"]
    others = {
        "failed": tally.num_failed,
        "answered before": tally.before["ok"],
        "failed before": tally.before["error"],
        "left": tally.num_left,
    }
    return ", ".join(parts + [f"{count:,} {what}" for what, count in others.items() if count])


def describe_rate(tally: Tally) -> str:
    """`12.3 items a minute, 14:36 to go, 3 of 4 workers`; what there is of it, or for how long nothing finished."""
    from sfvqa.video.sampling import format_time

    rate, left = tally.items_a_minute, tally.seconds_to_go
    parts = ["nothing finished yet" if rate is None else f"{rate:.1f} items a minute"]
    if left:
        parts.append(f"{format_time(round(left))} to go")
    elif rate is not None and tally.num_left:
        parts.append(f"nothing finished for {format_time(round(tally.still_seconds))}")
    if wanted := tally.num_workers_wanted:
        missing = f"{tally.num_workers:,} of " if tally.num_workers < wanted else ""
        parts.append(f"{missing}{plural(wanted, 'worker')}")
    return ", ".join(parts)


def describe_stages(tally: Tally) -> str:
    """`bottleneck: encoding, the model waits for frames 3 % of the time`."""
    if tally.bottleneck is None or tally.waiting_share is None:
        return "starting"
    return f"bottleneck: {tally.bottleneck}, the model waits for frames {tally.waiting_share:.0%} of the time".replace(
        "%", " %"
    )


SECONDS_BETWEEN_LINES = 5.0
_REDRAWS_A_SECOND = 4
_NUM_LAST = 5  # items shown under the numbers
_WIDEST_BAR = 60


class Display(ABC):
    """Shows a batch while it runs."""

    def __init__(self) -> None:
        self.tally: Tally | None = None

    def follow(self, events: "Events") -> Tally:
        """Run it to its end."""
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                tally: Tally = end.value
                return tally
            self.tally = event.tally
            self._show(event)

    @abstractmethod
    def _show(self, event: "BatchEvent") -> None:
        """Say what of it is worth a line."""


class PlainDisplay(Display):
    """A line at most every few seconds, and one for each failure."""

    def __init__(self, notices: "Notices") -> None:
        super().__init__()
        self._notices = notices
        self._said_at = time.monotonic()

    def _show(self, event: "BatchEvent") -> None:
        if isinstance(event, ItemFinished) and event.record["status"] == "error":
            self._notices.note(f"Failed: {event.item.label}: {event.item.question} {event.record['error']['message']}")
        if isinstance(event, Working) and event.notice:
            self._notices.warn(event.notice, again=True)
        if time.monotonic() - self._said_at >= SECONDS_BETWEEN_LINES:
            self._said_at = time.monotonic()
            tally = event.tally
            self._notices.hint(f"{describe_tally(tally)}; {describe_rate(tally)}; {describe_stages(tally)}")


class LiveDisplay(Display):
    """A bar, the numbers and the last answers, redrawn quietly; nothing of it stays."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._last: deque[Text] = deque(maxlen=_NUM_LAST)

    def follow(self, events: "Events") -> Tally:
        """Run it to its end."""
        with Live(
            console=self._console,
            get_renderable=self.render,
            refresh_per_second=_REDRAWS_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        ):
            return super().follow(events)

    def render(self) -> RenderableType:
        """What stands there now; every line is cut to the width of the terminal."""
        tally = self.tally
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
        line = _line(f"{event.item.label}: {event.item.question} ")
        line.append(printable_line(said), style="bold" if is_answered else "red")
        self._last.append(line)


def _line(text: str, style: str = "") -> Text:
    return Text(printable_line(text), style=style, no_wrap=True, overflow="ellipsis")


def run(request: "PlannedBatch", journal: "Journal", notices: "Notices") -> Tally:
    """Load the model, if anything is left to be asked, and answer. Raises what ends a batch early."""
    items, options = request.items, request.options
    for notice in journal.notices:
        notices.warn(notice)
    with notices.waiting("Looking for what is done"):
        before = _all_done(items, journal, options)
    if before is not None:
        return Tally(len(items), before=before)
    events = _start(request, journal, notices)
    display = LiveDisplay() if notices.live else PlainDisplay(notices)
    try:
        with contextlib.closing(events):
            return display.follow(events)
    except BaseException as error:
        notices.note(f"{describe_tally(display.tally)}." if display.tally else "Nothing was answered.")
        if journal.remembers and not isinstance(error, JournalError):  # which says what is left of the file
            notices.note("What is done is kept; rerun the command to resume.")
        raise


def _start(request: "PlannedBatch", journal: "Journal", notices: "Notices") -> "Events":
    """The batch, of which nothing has run yet but, without a cluster, loading the model."""
    if request.cluster is not None:
        from sfvqa.batch.cluster.runner import run_on_cluster

        assert request.loader is not None
        return run_on_cluster(request.loader, request.items, journal, request.options, request.cluster)
    from sfvqa.batch.runner import run_batch
    from sfvqa.cli.model import check_fit, load

    assert request.plan is not None
    check_fit(request.plan, None, notices)
    answerer = load(request.plan.settings, request.cache, notices)
    return run_batch(answerer, request.items, journal, request.options)


def show_summary(tally: Tally, out: Path, notices: "Notices", *, json: bool) -> "ExitCode":
    """What became of the items: a few lines, and with --json one object on stdout; the exit code that says so."""
    if tally.stopped:
        notices.warn(f"{tally.stopped} Left: {plural(tally.num_left, 'item')}; rerun the command to resume.")
    notices.note(describe_tally(tally) + ".")
    for kind, count in sorted(tally.errors.items(), key=lambda error: (-error[1], error[0])):
        notices.note(f"Failed: {count:,} × {kind}")
    if tally.before["error"]:
        notices.note("Use --retry-errors to retry the items that failed before.")
    if tally.num_answered or tally.num_failed:
        notices.detail(f"{describe_rate(tally)}; {describe_stages(tally)}.")
    notices.note(f"Records: {out}")
    if json:
        sys.stdout.write(jsonlib.dumps(tally.to_dict(), allow_nan=False) + "\n")
        sys.stdout.flush()
    return tally.exit_code


def _all_done(items: "Sequence[Item]", journal: "Journal", options: "BatchOptions") -> Counter[str] | None:
    """The statuses of all items, None where one is left; videos are hashed only if the file has as many records."""
    from sfvqa.batch.identify import identify
    from sfvqa.batch.item import group_items

    before: Counter[str] = Counter()
    if len(journal.done) < len(items):
        return None
    for group in group_items(items):
        found = identify(group, options, journal)
        if found.questions:
            return None
        before += found.before
    return before
