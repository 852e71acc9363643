"""`python -m sfvqa.lab.measurements.cold_start`: from Enter to the first token of `sfvqa ask`, as a user sees it.

The clock starts before the process does and stops at the first byte on its standard output, which is a terminal. With
an empty video cache, with a filled one, and with a server that has the model loaded. Another checkout can be measured
beside this one, a run of each in turn.
"""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
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
    from collections.abc import Iterator

HERE = Path(sfvqa.__file__).parents[1]
NOTHING_KEPT, VIDEO_KEPT, WITH_SERVER = "nothing kept", "video cache", "video cache, server"
_START_SECONDS = 120.0  # that a server has to load


@dataclass(frozen=True)
class Start:
    """One run: seconds until the first byte of the answer came, and until the process had ended."""

    checkout: str
    way: str
    first_token_seconds: float
    total_seconds: float
    answer: str


def ask_once(checkout: Path, way: str, command: list[str], folder: Path) -> Start:
    """Run `sfvqa ask` with the code of a checkout; video cache and servers are those in a folder.

    SfvqaError where it fails.
    """
    ours, theirs = os.openpty()
    notices, for_notices = os.openpty()
    said = bytearray()
    watching = threading.Thread(target=lambda: list(_pieces(notices)))
    watching.start()
    began = time.perf_counter()
    process = subprocess.Popen(
        _sfvqa("ask", *command), env=_environment(checkout, folder), stdout=theirs, stderr=for_notices
    )
    os.close(theirs)
    os.close(for_notices)
    first_token_seconds = 0.0
    for piece in _pieces(ours):
        first_token_seconds = first_token_seconds or time.perf_counter() - began
        said += piece
    exit_code, total_seconds = process.wait(), time.perf_counter() - began
    watching.join()
    if exit_code:
        raise SfvqaError(f"`sfvqa ask` of {checkout} ended with exit code {exit_code}.", "Run it to see why.")
    return Start(checkout.name, way, first_token_seconds, total_seconds, " ".join(said.decode().split()))


def _sfvqa(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "sfvqa", *arguments]  # -P: not the code of the working directory


def _environment(checkout: Path, folder: Path) -> dict[str, str]:
    own = {"PYTHONPATH": checkout, "SFVQA_CACHE_DIR": folder / "cache", "SFVQA_RUNTIME_DIR": folder / "run"}
    return {**os.environ, **{name: str(path) for name, path in own.items()}}


def _pieces(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal, until nobody has it open."""
    with os.fdopen(terminal, "rb", buffering=0) as reading, contextlib.suppress(OSError):  # Linux says EIO at the end
        while piece := reading.read(1 << 16):
            yield piece


@contextlib.contextmanager
def server(checkout: Path, options: list[str], folder: Path) -> Iterator[None]:
    """A server while the block runs. SfvqaError where it does not start."""
    log, arguments = folder / "server.log", _sfvqa("serve", "--port", "0", *options)
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, env=_environment(checkout, folder), stdout=output, stderr=output)
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not list((folder / "run").glob("*.sock")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SfvqaError(f"The server of {checkout} did not start.", log.read_text(encoding="utf-8"))
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def measure(checkouts: list[Path], command: list[str], repeats: int, served: list[str] | None) -> list[Start]:
    """Run every checkout `repeats` times in each way, in turn, after one run of each that does not count.

    The last way is with a server that has the options `served`; None leaves it out.
    """
    starts = []
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as servers:
        warm = {checkout: Path(temporary, f"{place}") for place, checkout in enumerate(checkouts) if served is not None}
        for checkout, folder in warm.items():
            folder.mkdir()
            servers.enter_context(server(checkout, served or [], folder))
        for repeat in range(-1, repeats):
            for checkout in checkouts:
                with tempfile.TemporaryDirectory() as cold:  # filled by the first of the two
                    runs = [ask_once(checkout, way, command, Path(cold)) for way in (NOTHING_KEPT, VIDEO_KEPT)]
                if checkout in warm:
                    runs.append(ask_once(checkout, WITH_SERVER, command, warm[checkout]))
                if repeat >= 0:
                    starts += runs
                    print(
                        *(f"{one.checkout}, {one.way}: {one.first_token_seconds:.2f} s" for one in runs),
                        file=sys.stderr,
                    )
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
    parser.add_argument("--server", action="store_true", help="also with a server of each checkout")
    parser.add_argument("--repeats", type=int, default=10, help="runs of each, whose medians count")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    options = parse_arguments(arguments)
    model = ["--model", options.model] if options.model else []
    command = [options.video, options.question, *model]
    starts = measure([HERE, *options.beside], command, options.repeats, model if options.server else None)
    write_figures(options.json, starts=[asdict(start) for start in starts])
    print(starts_table(starts))


if __name__ == "__main__":
    main()
