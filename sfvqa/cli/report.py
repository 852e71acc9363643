"""`sfvqa report`: what a file of records says as a whole: on the terminal, as JSON, as a table, as a page."""

import json as jsonlib
import sys
from pathlib import Path
from textwrap import fill
from typing import Annotated

import typer

from sfvqa.cli.models.options import Json
from sfvqa.cli.options import parse_file
from sfvqa.evaluation.matching import Rule

HELP = f"""\b
[bold]Examples[/bold]
  sfvqa report out.jsonl
  sfvqa report out.jsonl --html out.html --csv out.csv
  sfvqa report new.jsonl --against old.jsonl
  sfvqa report out.jsonl --json | jq .score

Say what became of a batch: counts, rates, where the time went, errors and
warnings by kind, and where true answers are known how many are right and
which are wrong. The last record of an item counts.

{fill(Rule.PHRASE.statement, 76)}
With --exact only equality counts, but for case, white space and marks at the
end, and the letter of a choice.

In the CSV a text that a spreadsheet would calculate, and one that begins with
', has a ' before it: take it away to get what was recorded."""

_FILES = "What is written"

Records = Annotated[
    Path,
    typer.Argument(parser=parse_file, metavar="OUT.jsonl", help="The records of a batch.", show_default=False),
]
Against = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="OLD.jsonl",
        help="Compare with the records of another run, on the labelled items that both have.",
        show_default=False,
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FILE",
        help="Write a table, a row an item.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
Html = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FILE",
        help="Write one page with everything in it, to look at in a browser.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
Thumbnails = Annotated[
    int,
    typer.Option(
        metavar="N",
        min=0,
        max=32,
        help="Show up to N of the frames of a video on the page; 0 reads no video.",
        rich_help_panel=_FILES,
    ),
]
Videos = Annotated[
    Path | None,
    typer.Option(
        parser=parse_file,
        metavar="FOLDER",
        help="Where the videos lie now; else where they lay then, here, or beside the records.",
        show_default=False,
        rich_help_panel=_FILES,
    ),
]
Exact = Annotated[
    bool,
    typer.Option("--exact", metavar="", help="An answer is right only if it equals the expected one."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="Only warnings and errors on stderr.")]


def report(
    records: Records,
    against: Against = None,
    exact: Exact = False,
    csv: Csv = None,
    html: Html = None,
    thumbnails: Thumbnails = 6,
    videos: Videos = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check what can be checked, read the records once, write what was asked for, print the figures."""
    from rich.console import Console

    from sfvqa.batch.report.against import compare_runs
    from sfvqa.batch.report.collecting import collect
    from sfvqa.batch.report.document import summary_document
    from sfvqa.batch.report.summary import summarise
    from sfvqa.cli.render import Notices
    from sfvqa.cli.report_files import ReportFiles
    from sfvqa.cli.report_view import report_page

    files = ReportFiles(csv, html, thumbnails, videos)
    files.check(records, against)
    notices = Notices(quiet=quiet)
    with notices.waiting("Reading the records"):
        rule = Rule.EXACT if exact else Rule.PHRASE
        run = collect(records, rule)
        other = None if against is None else collect(against, rule)
    summary = summarise(run)
    comparison = None if other is None else compare_runs(run, other)
    if json:
        sys.stdout.write(jsonlib.dumps(summary_document(summary, comparison), allow_nan=False) + "\n")
    else:
        Console(highlight=False, markup=False, emoji=False).print(report_page(summary, comparison))
    sys.stdout.flush()
    for notice in (*summary.notices, *(other.notices if other else ())):
        notices.warn(notice)
    files.write(run, summary, comparison, notices)
