"""`python -m sfvqa.lab.measurements.workers`: one folder answered without Ray, by one Ray worker and by two.

What a cluster costs, then, and what a second worker brings where both share the cores; more machines are not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, medians, write_figures
from sfvqa.lab.measurements.numbered_videos import find_or_write_many
from sfvqa.profiling.profile import Device
from sfvqa.registry import find_model

if TYPE_CHECKING:
    import argparse

QUESTION = "Describe the video."
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class Batch:
    """Medians of one way of answering the folder; `num_workers` 0 is without Ray.

    `outside_seconds` is what the whole command took beside answering: starting, loading, ending. `peak_memory_bytes` is
    the most that its processes held at a time, what they share counted once; None where the system does not tell.
    """

    model: str
    num_workers: int
    num_videos: int
    wall_seconds: float
    answering_seconds: float
    outside_seconds: float
    waiting_share: float
    peak_memory_bytes: float | None
    texts: tuple[str, ...]

    @property
    def videos_a_minute(self) -> float:
        """Once every worker is ready."""
        return 60 * self.num_videos / self.answering_seconds


def measure(model: str, folder: Path, num_workers: int, repeats: int, num_frames: int | None) -> Batch:
    """Answer one question about every video of the folder, in a process of its own, `repeats` times."""
    flags = ["--model", model, "--device", "cpu", "--no-cache", "--max-new-tokens", "32", "--json", "-q"]
    flags += [] if find_model(model).has_weights else ["--random-weights"]
    flags += ["--frames", str(num_frames)] if num_frames else []
    flags += ["--ray", "--workers", str(num_workers)] if num_workers else []
    runs = []
    for _ in range(repeats):
        runs.append(_run(model, folder, num_workers, flags))
        print(f"{model}, {_name(num_workers)}: {runs[-1].wall_seconds:.1f} s", file=sys.stderr)
    seconds = ("wall_seconds", "answering_seconds", "outside_seconds")
    return medians(runs, *seconds, "waiting_share", "peak_memory_bytes")


def _run(model: str, folder: Path, num_workers: int, flags: list[str]) -> Batch:
    with tempfile.TemporaryDirectory() as output:
        out = Path(output, "out.jsonl")
        command = [sys.executable, "-m", "sfvqa", "batch", str(folder), "--question", QUESTION, "-o", str(out), *flags]
        began, peak = time.perf_counter(), 0
        running = subprocess.Popen(
            command, env={**os.environ, "RAY_ADDRESS": "local"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while running.poll() is None:
            peak = max(peak, _held_bytes(running.pid))
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        wall = time.perf_counter() - began
        said, wrong = running.communicate()
        if running.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {running.returncode}: {wrong.decode()}")
        records = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
    summary = json.loads(said)
    return Batch(
        model=model,
        num_workers=num_workers,
        num_videos=summary["items"],
        wall_seconds=wall,
        answering_seconds=summary["elapsed_seconds"],
        outside_seconds=wall - summary["elapsed_seconds"],
        waiting_share=summary["waiting_share"],
        peak_memory_bytes=peak or None,
        texts=tuple(record["answer"] for record in sorted(records, key=lambda record: str(record["video"]))),
    )


def _held_bytes(pid: int) -> int:
    """Of a process and all that it started, 0 where there is no /proc; pages of several count for each in part."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(after_name[1]), []).append(int(path.parent.name))
    total, left = 0, [pid]
    while left:
        one = left.pop()
        left += children.get(one, [])
        total += _proportional_bytes(one)
    return total


def _proportional_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def table(results: list[Batch]) -> str:
    """Markdown: a row a way, beside the way without Ray of the same model."""
    alone = {result.model: result for result in results if not result.num_workers}
    rows = []
    for result in results:
        beside = alone.get(result.model, result)
        same = sum(one == other for one, other in zip(result.texts, beside.texts, strict=True))
        gain = result.videos_a_minute / beside.videos_a_minute
        rows.append(
            [
                f"`{result.model}`",
                _name(result.num_workers),
                f"{result.videos_a_minute:.1f} ({gain:.2f} ×)",
                f"{result.wall_seconds:.1f} s",
                f"{result.outside_seconds:.1f} s",
                f"{result.waiting_share:.0%}",
                "unknown" if result.peak_memory_bytes is None else f"{result.peak_memory_bytes / 1e9:.2f} GB",
                f"{same} of {len(result.texts)}",
            ]
        )
    heads = ["videos a minute", "all of it", "start and end", "waits for frames", "memory", "same answers"]
    return markdown_table(["model", "workers", *heads], rows, num_texts=2)


def _name(num_workers: int) -> str:
    return f"{num_workers} with Ray" if num_workers else "without Ray"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("workers", __doc__, kept="the videos are")
    parser.add_argument("--videos", type=int, default=24, help="how many are made, if none are there")
    parser.add_argument("--models", nargs="*", default=["tiny"])
    parser.add_argument("--workers", nargs="*", type=int, default=[0, 1, 2], help="0 is without Ray")
    parser.add_argument("--frames", type=int, help="default: as many as in training")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the videos if need be, measure, print the table."""
    options = parse_arguments(arguments)
    if not options.folder.is_dir():
        find_or_write_many(options.folder, options.videos)
    here = asdict(Device.of(torch.device("cpu")))
    print(f"{here['name']}, {here['num_cores']} cores, Python {here['python_version']}\n", flush=True)
    results = [
        measure(model, options.folder, num_workers, options.repeats, options.frames)
        for model in options.models
        for num_workers in options.workers
    ]
    write_figures(options.json, machine=here, batches=[asdict(result) for result in results])
    print(table(results))


if __name__ == "__main__":
    main()
