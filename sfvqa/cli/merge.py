"""`sfvqa merge`: one file of records from those of several shards or machines."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from sfvqa.cli.options import ResultOptions, parse_file
from sfvqa.wording import plural

HELP = """\b
[bold]Examples[/bold]
  sfvqa merge all.jsonl shard-1.jsonl shard-2.jsonl
  sfvqa merge all.jsonl shard-*.jsonl --overwrite --json

Merge files of records into one with one record per item: the answer if there
is one, else the last error. If files hold different answers to an item, the
first is kept, with a warning."""

Output = Annotated[
    Path, typer.Argument(parser=parse_file, metavar="OUT.jsonl", help="The file to write.", show_default=False)
]
Parts = Annotated[
    list[Path],
    typer.Argument(parser=parse_file, metavar="PART", help="Files that `sfvqa batch` wrote.", show_default=False),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Move an existing OUT.jsonl aside, to OUT.jsonl.old.")
]
_LONGEST_LIST = 10


def merge(output: Output, parts: Parts, overwrite: Overwrite = False, *, result: ResultOptions) -> None:
    """Merge the files, and say what became of the records."""
    from sfvqa.batch.merge import merge_records

    notices = result.notices()
    merged = merge_records(parts, output, overwrite=overwrite)
    num_records, num_ok, conflicts = len(merged.best), merged.num_ok, list(merged.conflicts)
    for notice in merged.notices:
        notices.warn(notice)
    if conflicts:
        shown = ", ".join(conflicts[:_LONGEST_LIST]) + (", …" if len(conflicts) > _LONGEST_LIST else "")
        notices.warn(f"{plural(len(conflicts), 'item')} had different answers; the first was kept: {shown}.")
    if result.json:
        document = {
            "schema_version": 1,
            "output": str(output),
            "records": num_records,
            "ok": num_ok,
            "errors": num_records - num_ok,
            "repeated": merged.num_repeated,
            "superseded": merged.num_superseded,
            "conflicts": conflicts,
            "warnings": merged.notices,
        }
        typer.echo(jsonlib.dumps(document))
    else:
        kept = f"{plural(num_ok, 'answer')} and {plural(num_records - num_ok, 'error')}"
        dropped = f"{plural(merged.num_repeated, 'repeated answer')}, {plural(merged.num_superseded, 'older error')}"
        notices.note(f"{output}: {kept}; left out: {dropped}.")
