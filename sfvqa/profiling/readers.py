"""`python -m sfvqa.profiling.readers`: what getting 64 frames of a video costs, ours beside other readers, in one run.

Builds its own videos once. Every reader runs in a process of its own, imports not counted, and its frames' burnt-in
numbers are compared with those asked for.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sfvqa.profiling.numbered_videos import NumberedVideo, number_in, write_numbered
from sfvqa.profiling.other_readers import OTHER_READERS, READER_NAMES, read_with

NUM_FRAMES = 64
_LONG_SECONDS = 300
_SETTLING_SECONDS = 0.3  # threads that importing numpy starts look for work for a while, on the process's clock

_SENSOR = 2.0  # grain of the 360p videos

VIDEOS = (
    NumberedVideo("short-gop.mp4", "20 s, 360p, H.264, GOP 12", "libx264", 640, 360, 20, 12, grain=_SENSOR),
    NumberedVideo("long-1080p.mp4", "10 min, 1080p, H.264, GOP 250", "libx264", 1920, 1080, 600, 250),
    NumberedVideo("hour-720p.mp4", "60 min, 720p, H.264, GOP 250", "libx264", 1280, 720, 3600, 250),
    NumberedVideo(
        "variable.mp4", "20 s, 360p, H.264, variable rate", "libx264", 640, 360, 20, 250,
        has_even_steps=False, grain=_SENSOR,
    ),
    NumberedVideo(
        "vp9.webm", "2 min, 360p, VP9", "libvpx-vp9", 640, 360, 120, 120,
        grain=_SENSOR, options={"deadline": "realtime", "cpu-used": "8"},
    ),
    NumberedVideo(
        "hevc.mp4", "2 min, 720p, HEVC, GOP 250", "libx265", 1280, 720, 120, 250,
        options={"x265-params": "log-level=none"},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """One reader on one video: medians of seconds, right frames of NUM_FRAMES in the worst run (None: it failed)."""

    video: str
    reader: str
    cpu_seconds: float | None
    wall_seconds: float | None
    right: int | None
    error: str | None = None


def measure(path: Path, reader: str, repeats: int) -> Measured:
    """Time `reader` on the video `repeats` times, each in a fresh process."""
    command = [sys.executable, "-m", "sfvqa.profiling.readers", "--one", reader, str(path)]
    runs = []
    for _ in range(repeats):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            lines = run.stderr.strip().splitlines() or [f"ended with code {run.returncode}"]
            return Measured(path.name, reader, None, None, None, lines[-1])
        runs.append(json.loads(run.stdout.splitlines()[-1]))
    return Measured(
        path.name,
        reader,
        statistics.median(run["cpu_seconds"] for run in runs),
        statistics.median(run["wall_seconds"] for run in runs),
        min(run["right"] for run in runs),
    )


def run_one(reader: str, path: Path) -> None:
    """Read once in this process and print the outcome as JSON."""
    read = read_with(reader)  # imports what it needs
    recipe = next(video for video in VIDEOS if video.name == path.name)
    wanted = [
        (2 * place * (recipe.num_frames - 1) + NUM_FRAMES - 1) // (2 * NUM_FRAMES - 2) for place in range(NUM_FRAMES)
    ]
    time.sleep(_SETTLING_SECONDS)
    wall, cpu = time.perf_counter(), time.process_time()
    frames = read(path, wanted)
    cpu_seconds, wall_seconds = time.process_time() - cpu, time.perf_counter() - wall
    right = sum(number_in(frame) == index for frame, index in zip(frames, wanted, strict=False))
    print(json.dumps({"cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds, "right": right}))


def as_table(results: list[Measured]) -> str:
    """Markdown: a row a video, a column a reader; CPU seconds, and in brackets their ratio to ours."""
    readers = list(dict.fromkeys(result.reader for result in results))
    found = {(result.video, result.reader): result for result in results}
    lines = [
        "| CPU seconds for 64 frames (× ours) | " + " | ".join(READER_NAMES[reader] for reader in readers) + " |",
        "|---|" + "---:|" * len(readers),
    ]
    for video in VIDEOS:
        if (video.name, readers[0]) in found:
            ours = found[video.name, readers[0]]
            cells = (_cell(found[video.name, reader], ours) for reader in readers)
            lines.append(f"| {video.description} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: Measured, ours: Measured) -> str:
    if result.cpu_seconds is None:
        return "fails"
    ratio = f" ({result.cpu_seconds / ours.cpu_seconds:.2f})" if ours.cpu_seconds and result is not ours else ""
    wrong = "" if result.right == NUM_FRAMES else f", **{result.right} right**"
    wall = f", wall {result.wall_seconds:.2f}" if result.reader.startswith("ours") else ""
    return f"{result.cpu_seconds:.2f}{ratio}{wall}{wrong}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.profiling.readers", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/readers"), help="where the videos are kept")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (three at most of the long videos)")
    parser.add_argument("--videos", nargs="*", choices=[video.name for video in VIDEOS], help="default: all")
    parser.add_argument("--build-only", action="store_true", help="make the videos and measure nothing")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--one", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Build what is missing, measure, print the table."""
    options = parse_arguments(arguments)
    if options.one:
        run_one(options.one[0], Path(options.one[1]))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    videos = [video for video in VIDEOS if not options.videos or video.name in options.videos]
    for video in videos:
        if not (options.folder / video.name).exists():
            print(f"writing {video.name}: {video.description}", file=sys.stderr)
            write_numbered(video, options.folder / video.name)
    if options.build_only:
        return
    readers = ["ours", "ours-2", *(name for name, module in OTHER_READERS.items() if importlib.util.find_spec(module))]
    results = []
    for video in videos:
        repeats = min(options.repeats, 3) if video.seconds >= _LONG_SECONDS else options.repeats
        for reader in readers:
            results.append(measure(options.folder / video.name, reader, repeats))
            print(results[-1], file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps({"schema_version": 1, "results": [asdict(result) for result in results]}))
    print(as_table(results))


if __name__ == "__main__":
    main()
