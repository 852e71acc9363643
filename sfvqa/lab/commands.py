"""What the laboratory's commands share: their options, their errors, and tables as its READMEs hold them."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sfvqa.errors import SfvqaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from _typeshed import DataclassInstance

_T = TypeVar("_T", bound="DataclassInstance")


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m sfvqa.lab.NAME`."""
    return argparse.ArgumentParser(prog=f"python -m sfvqa.lab.{name}", description=description)


def measurement_parser(name: str, description: str | None, *, kept: str) -> argparse.ArgumentParser:
    """A parser for `python -m sfvqa.lab.measurements.NAME`, with where what is `kept` goes, how often, and JSON."""
    parser = command_parser(f"measurements.{name}", description)
    parser.add_argument("--folder", type=Path, default=Path("runs", name), help=f"where {kept} kept")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, whose medians count")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


@contextmanager
def errors_without_traceback() -> Iterator[None]:
    """End the program with the message and exit code of an error that is raised on purpose."""
    try:
        yield
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        raise SystemExit(int(error.exit_code)) from None


def write_figures(path: Path | None, **figures: object) -> None:
    """Write what was measured as JSON, if there is a path."""
    if path is not None:
        path.write_text(json.dumps({"schema_version": 1, **figures}, indent=2) + "\n", encoding="utf-8")


def medians(runs: Sequence[_T], *names: str) -> _T:
    """The first of several runs (dataclasses) with the medians of the fields `names`; None is left out of those."""
    found = {name: [value for run in runs if (value := getattr(run, name)) is not None] for name in names}
    return replace(runs[0], **{name: statistics.median(values) for name, values in found.items() if values})


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, num_texts: int = 1) -> str:
    """A row a line; the first `num_texts` columns hold words and are set left, the others numbers and are set right.

    >>> print(markdown_table(["video", "seconds"], [["short", "1.5"]]))
    | video | seconds |
    |---|---:|
    | short | 1.5 |
    """
    ruler = "|---" * num_texts + "|---:" * (len(head) - num_texts) + "|"
    return "\n".join([_line(head), ruler, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
