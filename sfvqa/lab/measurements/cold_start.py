"""`python -m sfvqa.lab.measurements.cold_start`: from Enter to the first token of `sfvqa ask`, as a user sees it.

The clock starts before the process does and stops at the first byte on its standard output. Another checkout can be
measured beside this one, a run of each in turn.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sfvqa
from sfvqa.errors import SfvqaError
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures

if TYPE_CHECKING:
    import argparse

HERE = Path(sfvqa.__file__).parents[1]
NOTHING_KEPT, VIDEO_KEPT = "nothing kept", "video cache"


@dataclass(frozen=True)
class Start:
    """One run: seconds until the first byte of the answer came, and until the process had ended."""

    checkout: str
    way: str
    first_token_seconds: float
    total_seconds: float
    answer: str


def ask_once(checkout: Path, way: str, command: list[str], cache: Path) -> Start:
    """Run `sfvqa ask` with the code of a checkout and an empty or filled video cache. SfvqaError where it fails."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "SFVQA_CACHE_DIR": str(cache)}
    arguments = [sys.executable, "-P", "-m", "sfvqa", "ask", *command]  # -P: not the code of the working directory
    began = time.perf_counter()
    with subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        said = process.stdout.read(1)
        first_token_seconds = time.perf_counter() - began
        while more := process.stdout.read(1 << 16):
            said += more
    total_seconds = time.perf_counter() - began
    if process.returncode:
        raise SfvqaError(f"`sfvqa ask` of {checkout} ended with exit code {process.returncode}.", "See above why.")
    return Start(checkout.name, way, first_token_seconds, total_seconds, said.decode().strip())


def measure(checkouts: list[Path], command: list[str], repeats: int) -> list[Start]:
    """Run every checkout `repeats` times in either way, in turn, after one run of each that does not count."""
    starts = []
    for repeat in range(-1, repeats):
        for checkout in checkouts:
            with tempfile.TemporaryDirectory() as cache:  # filled by the first of the two
                both = [ask_once(checkout, way, command, Path(cache)) for way in (NOTHING_KEPT, VIDEO_KEPT)]
            if repeat >= 0:
                starts += both
                print(*(f"{one.checkout}, {one.way}: {one.first_token_seconds:.2f} s" for one in both), file=sys.stderr)
    return starts


def starts_table(starts: list[Start]) -> str:
    """Markdown: a row a checkout and way, with medians and how far runs lie apart."""
    grouped: dict[tuple[str, str], list[Start]] = defaultdict(list)
    for start in starts:
        grouped[start.way, start.checkout].append(start)
    rows = []
    for (way, checkout), runs in grouped.items():
        firsts = [run.first_token_seconds for run in runs]
        total = statistics.median(run.total_seconds for run in runs)
        span = f"{min(firsts):.2f}–{max(firsts):.2f} s"
        rows.append([way, checkout, f"{statistics.median(firsts):.2f} s", span, f"{total:.2f} s"])
    return markdown_table(["", "checkout", "first token", "of all runs", "end"], rows, num_texts=2)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.cold_start", __doc__)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], help="other checkouts, measured in turn")
    parser.add_argument("--video", default="shapes.mp4")
    parser.add_argument("--question", default="What flashes?")
    parser.add_argument("--model", help="default: as `ask` chooses")
    parser.add_argument("--repeats", type=int, default=10, help="runs of each, whose medians count")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    options = parse_arguments(arguments)
    command = [options.video, options.question, *(["--model", options.model] if options.model else [])]
    starts = measure([HERE, *options.beside], command, options.repeats)
    write_figures(options.json, starts=[asdict(start) for start in starts])
    print(starts_table(starts))


if __name__ == "__main__":
    main()
