"""Runs a batch under its display, and says how it ended; an interrupted one says how to go on."""

import contextlib
import json as jsonlib
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli import session
from sfvqa.cli.batch.display import make_display
from sfvqa.cli.batch.words import describe_errors, describe_rate, describe_stages, describe_tally
from sfvqa.cli.planning import check_fit
from sfvqa.cli.text import plural
from sfvqa.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.batch.item import Item
    from sfvqa.batch.journal import Journal
    from sfvqa.batch.options import BatchOptions
    from sfvqa.batch.tally import BatchSummary
    from sfvqa.cli.batch.display import Events
    from sfvqa.cli.batch.request import BatchRequest
    from sfvqa.cli.render import Notices
    from sfvqa.errors import ExitCode


def run(request: "BatchRequest", journal: "Journal", notices: "Notices") -> "BatchSummary":
    """Load the model, if anything is left to be asked, and answer. Raises what ends a batch early."""
    from sfvqa.batch.tally import BatchSummary, Tally

    items, options = request.items, request.options
    for notice in journal.notices:
        notices.warn(notice)
    with notices.waiting("Looking for what is done"):
        before = _all_done(items, journal, options)
    if before is not None:
        tally = Tally(len(items), num_answered_before=before["ok"], num_failed_before=before["error"])
        return BatchSummary(tally, most_frames_held=0)
    events = _start(request, journal, notices)
    display = make_display(notices)
    try:
        with contextlib.closing(events):
            return display.follow(events)
    except BaseException as error:
        notices.note(display.so_far)
        if journal.remembers and not isinstance(error, JournalError):  # which says what is left of the file
            notices.note("What is done is kept; the same command goes on from there.")
        raise


def _start(request: "BatchRequest", journal: "Journal", notices: "Notices") -> "Events":
    """The batch, of which nothing has run yet but, without a cluster, loading the model."""
    if request.cluster is not None:
        from sfvqa.batch.cluster.runner import run_on_cluster

        assert request.loader is not None
        return run_on_cluster(request.loader, request.items, journal, request.options, request.cluster)
    from sfvqa.batch.runner import run_batch

    assert request.planned is not None
    check_fit(request.planned, request.asked.quantization, notices)
    answerer = session.load_model(request.planned.model, request.cache, notices)
    return run_batch(answerer, request.items, journal, request.options)


def show_summary(summary: "BatchSummary", out: Path, notices: "Notices", *, json: bool) -> "ExitCode":
    """What became of the items: a few lines, and with --json one object on stdout; the exit code that says so."""
    tally = summary.tally
    if summary.stopped:
        notices.warn(f"{summary.stopped} Left: {plural(tally.num_left, 'item')}; the same command goes on with them.")
    notices.note(describe_tally(tally) + ".")
    for line in describe_errors(tally):
        notices.note(line)
    if tally.num_failed_before:
        notices.note("--retry-errors asks again what failed before.")
    if tally.num_answered or tally.num_failed:
        notices.note(f"{describe_rate(tally)}; {describe_stages(tally)}.")
    notices.note(f"Records: {out}")
    if json:
        sys.stdout.write(jsonlib.dumps(summary.to_dict(), allow_nan=False) + "\n")
        sys.stdout.flush()
    return summary.exit_code


def _all_done(items: "Sequence[Item]", journal: "Journal", options: "BatchOptions") -> Counter[str] | None:
    """The statuses of all items, None where one is left; videos are hashed only if the file has as many records."""
    from sfvqa.batch.group import group_items
    from sfvqa.batch.preparing import identify, sort_out

    before: Counter[str] = Counter()
    if len(journal.done) < len(items):
        return None
    for group in group_items(items):
        left, of_group = sort_out(identify(group, options).asked, journal, options)
        if left:
            return None
        before += of_group
    return before
