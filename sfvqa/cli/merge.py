"""`sfvqa merge`: one file of records from those of several shards or machines."""

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfvqa.cli.options import ResultOptions, parse_file
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.batch.merge import MergeSummary

HELP = """\b
[bold]Examples[/bold]
  sfvqa merge all.jsonl shard-1.jsonl shard-2.jsonl
  sfvqa merge all.jsonl shard-*.jsonl --overwrite --json

Write the records of several files to one that has one record an item: the
answer if there is one, else the last error. Where files hold different answers
to one item, the first is kept, and you are told."""

Output = Annotated[
    Path, typer.Argument(parser=parse_file, metavar="OUT.jsonl", help="The file to write.", show_default=False)
]
Parts = Annotated[
    list[Path],
    typer.Argument(parser=parse_file, metavar="PART", help="Files that `sfvqa batch` wrote.", show_default=False),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Move an OUT.jsonl that is there aside, to OUT.jsonl.old.")
]
_LONGEST_LIST = 10


def merge(output: Output, parts: Parts, overwrite: Overwrite = False, *, result: ResultOptions) -> None:
    """Merge, and say what became of the records."""
    from sfvqa.batch.merge import merge_records

    notices = result.notices()
    summary = merge_records(parts, output, overwrite=overwrite)
    for notice in _warnings(summary):
        notices.warn(notice)
    if result.json:
        typer.echo(jsonlib.dumps(_document(summary)))
    else:
        notices.note(_sentence(summary))


def _warnings(summary: "MergeSummary") -> list[str]:
    if not summary.conflicts:
        return list(summary.notices)
    shown = ", ".join(summary.conflicts[:_LONGEST_LIST]) + (", …" if len(summary.conflicts) > _LONGEST_LIST else "")
    conflict = f"{plural(len(summary.conflicts), 'item')} had different answers, of which the first was kept: {shown}."
    return [*summary.notices, conflict]


def _sentence(summary: "MergeSummary") -> str:
    dropped = f"{plural(summary.num_repeated, 'repeated answer')}, {plural(summary.num_superseded, 'older error')}"
    kept = f"{plural(summary.num_ok, 'answer')} and {plural(summary.num_errors, 'error')}"
    return f"{summary.output}: {kept}; left out: {dropped}."


def _document(summary: "MergeSummary") -> dict[str, object]:
    return {
        "schema_version": 1,
        "output": str(summary.output),
        "records": summary.num_ok + summary.num_errors,
        "ok": summary.num_ok,
        "errors": summary.num_errors,
        "repeated": summary.num_repeated,
        "superseded": summary.num_superseded,
        "conflicts": list(summary.conflicts),
        "warnings": list(summary.notices),
    }
