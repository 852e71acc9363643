"""Runs a batch under its display, and says how it ended; an interrupted one says how to go on."""

import contextlib
import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.cli.batch.display import make_display
from sfvqa.cli.batch.words import describe_errors, describe_rate, describe_stages, describe_tally
from sfvqa.cli.session import load_model
from sfvqa.cli.text import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.batch.item import Item
    from sfvqa.batch.journal import Journal
    from sfvqa.batch.options import BatchOptions
    from sfvqa.batch.tally import BatchSummary
    from sfvqa.cli.render import Notices
    from sfvqa.cli.session import ModelRequest
    from sfvqa.inference.video_cache.store import VideoCache


def run(
    model: "ModelRequest",
    cache: "VideoCache | None",
    items: "Sequence[Item]",
    journal: "Journal",
    options: "BatchOptions",
    notices: "Notices",
) -> "BatchSummary":
    """Load the model, if anything is left to be asked, and answer. Raises what ends a batch early."""
    from sfvqa.batch.runner import run_batch
    from sfvqa.batch.tally import BatchSummary, Tally

    for notice in journal.notices:
        notices.warn(notice)
    with notices.waiting("Looking for what is done"):
        if _is_all_done(items, journal, options):
            return BatchSummary(Tally(len(items), num_skipped=len(items)), most_frames_held=0)
    answerer = load_model(model, cache, notices)
    display = make_display(notices)
    try:
        with contextlib.closing(run_batch(answerer, items, journal, options)) as events:
            return display.follow(events)
    except BaseException:
        notices.note(display.so_far)
        notices.note("What is done is kept; the same command goes on from there.")
        raise


def show_summary(summary: "BatchSummary", out: Path, notices: "Notices", *, json: bool) -> None:
    """What became of the items: a few lines, and with --json one object on stdout."""
    tally = summary.tally
    if summary.stopped:
        notices.warn(
            f"{summary.stopped} {plural(tally.num_left, 'item')} are left; the same command goes on with them."
        )
    notices.note(describe_tally(tally) + ".")
    for line in describe_errors(tally):
        notices.note(line)
    if tally.num_answered or tally.num_failed:
        notices.note(f"{describe_rate(tally)}; {describe_stages(tally)}.")
    notices.note(f"Records: {out}")
    if json:
        sys.stdout.write(jsonlib.dumps(summary.to_dict(), allow_nan=False) + "\n")
        sys.stdout.flush()


def _is_all_done(items: "Sequence[Item]", journal: "Journal", options: "BatchOptions") -> bool:
    """Whether no item is left; videos are only hashed for that where the file holds as many records."""
    from sfvqa.batch.group import group_items
    from sfvqa.batch.preparing import questions_left
    from sfvqa.batch.work import Work

    if len(journal.done) < len(items):
        return False
    return not any(questions_left(Work(group), journal, options)[0] for group in group_items(items))
