"""`sfvqa report`: what became of a batch, on the terminal, as a table, or as a page."""

import json as jsonlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.options import OptionGroup, ResultOptions, parse_file
from sfvqa.cli.whole_file import check_place, whole_text_file
from sfvqa.errors import UsageError
from sfvqa.evaluation.matching import Rule
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.batch.report.against import Comparison
    from sfvqa.batch.report.facts import RunFacts
    from sfvqa.batch.report.summary import Summary
    from sfvqa.cli.screen import Notices


@dataclass(frozen=True, kw_only=True)
class ReportFiles(OptionGroup):
    """What is written: a table, a page, how many frames of a video it shows, and where the videos lie."""

    panel = "What it writes"

    csv: Annotated[
        Path | None, typer.Option(parser=parse_file, metavar="FILE", help="Write a table with a row per item.")
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(parser=parse_file, metavar="FILE", help="Write a self-contained page to open in a browser."),
    ] = None
    thumbnails: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            max=32,
            help="Show up to N frames of each video on the page; 0 shows none and reads no video.",
        ),
    ] = 6
    videos: Annotated[
        Path | None,
        typer.Option(
            parser=parse_file,
            metavar="FOLDER",
            help="Where the videos are now (default: where they were, in this folder, or beside the records).",
        ),
    ] = None

    def check(self, *records: Path | None) -> None:
        """Fail now for what would fail at the end: UsageError, SfvqaError."""
        wanted = [path for path in (self.csv, self.html) if path is not None]
        if len({os.path.realpath(path) for path in wanted}) < len(wanted):
            raise UsageError("--csv and --html name the same file.", "Name two different files.")
        if self.videos is not None and not self.videos.is_dir():
            raise UsageError(f"There is no folder {self.videos} with videos.", "Name the folder they are in.")
        for path in wanted:
            check_place(path, keep=[kept for kept in records if kept is not None])

    def write(self, run: "RunFacts", summary: "Summary", comparison: "Comparison | None", notices: "Notices") -> None:
        """Write what is wanted, each whole or not at all."""
        from sfvqa.batch.report.exports import write_csv
        from sfvqa.batch.report.facts import last_records

        if self.csv is not None:
            with whole_text_file(self.csv) as stream:
                num_rows = write_csv(last_records(run), stream, run.rule, summary.fields)
            notices.note(f"Wrote {plural(num_rows, 'row')} to {self.csv}.")
        if self.html is None:
            return
        from sfvqa.batch.report.page import write_page

        with whole_text_file(self.html) as stream:
            steps = write_page(stream, run, summary, comparison, num_thumbnails=self.thumbnails, videos=self.videos)
            outcome = notices.follow(steps)
        size = readable_size(self.html.stat().st_size)
        notices.note(f"Wrote a page about {plural(outcome.num_videos, 'video')} to {self.html} ({size}).")
        if outcome.num_without_pictures:
            notices.warn(
                f"The page lacks pictures of {plural(outcome.num_without_pictures, 'video')}, and says why. "
                "If they lie in another folder now, name it with --videos."
            )


HELP = f"""\b
[bold]Examples[/bold]
  sfvqa report out.jsonl
  sfvqa report out.jsonl --html out.html --csv out.csv
  sfvqa report new.jsonl --against old.jsonl
  sfvqa report out.jsonl --json | jq .score

Summarise a batch: counts, rates, where the time went, errors and warnings by
kind, and, where true answers are known, how many are right and which are
wrong. The last record of an item counts.

--against says which of two runs is better, and whether that could be
chance, by the questions that both have: about the same range of the same
video (by its name, or else its file name), with the same choices. Settings
may differ.

{fill(Rule.PHRASE.statement, 76)}
With --exact, an answer must equal the expected one, apart from case, white
space, and punctuation at the end, or be the letter of a choice.

In the CSV, text that a spreadsheet would take for a formula, or that begins
with ', gets a ' in front; remove it to get the recorded text."""

Records = Annotated[
    Path, typer.Argument(parser=parse_file, metavar="OUT.jsonl", help="The records of a batch.", show_default=False)
]
Against = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="OLD.jsonl",
        help="Compare with the records of another run, on the questions that both have.",
    ),
]
Exact = Annotated[
    bool, typer.Option("--exact", metavar="", help="An answer is right only if it equals the expected one.")
]


def report(
    records: Records, against: Against = None, exact: Exact = False, *, files: ReportFiles, result: ResultOptions
) -> None:
    """Check what can be checked, read the records once, write what was asked for, print the figures."""
    from rich.console import Console

    from sfvqa.batch.report.against import compare_runs
    from sfvqa.batch.report.exports import summary_document
    from sfvqa.batch.report.facts import collect
    from sfvqa.batch.report.summary import summarise
    from sfvqa.cli.report_figures import comparison_page, report_page

    files.check(records, against)
    if against is not None and records.exists() and against.exists() and records.samefile(against):
        raise UsageError("--against names the same file.", "Name the records of another run.")
    notices = result.notices()
    with notices.waiting("Reading the records"):
        rule = Rule.EXACT if exact else Rule.PHRASE
        run = collect(records, rule, keeps_answers=against is not None)
        other = None if against is None else collect(against, rule, keeps_answers=True)
    summary = summarise(run)
    comparison = None if other is None else compare_runs(run, other)
    if result.json:
        sys.stdout.write(jsonlib.dumps(summary_document(summary, comparison), allow_nan=False) + "\n")
    else:
        page = report_page(summary) if comparison is None else comparison_page(comparison)
        Console(highlight=False, markup=False, emoji=False).print(page)
    sys.stdout.flush()
    for notice in (*summary.notices, *(other.notices if other else ())):
        notices.warn(notice)
    files.write(run, summary, comparison, notices)
