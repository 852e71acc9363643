"""`python -m sfvqa.lab.measurements.readers`: what 64 frames of a video cost with each reader, and if they are right.

Each reader runs in fresh processes on videos whose frames carry their number; others are measured where they are
installed.
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
from typing import TYPE_CHECKING, Any

from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write, number_in

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Read = Callable[[Path, list[int]], list[NDArray[np.uint8]]]


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
SHORTER_EDGE = 576
OTHER_READERS = {"opencv-seek": "cv2", "opencv-grab": "cv2", "torchcodec": "torchcodec", "decord": "decord"}
"""Each with the module that it needs."""

READER_NAMES = {
    "ours": "sfvqa, 1 handle",
    "ours-2": "sfvqa, 2 handles",
    "opencv-seek": "OpenCV seek",
    "opencv-grab": "OpenCV grab",
    "torchcodec": "torchcodec exact",
    "decord": "decord",
}


def read_with(reader: str) -> Read:
    """Import what `reader` needs and return its way to read: (path, indices) → frames [H, W, 3] of 576 pixels."""
    return {
        "ours": lambda: _ours(1),
        "ours-2": lambda: _ours(2),
        "opencv-seek": _opencv_seek,
        "opencv-grab": _opencv_grab,
        "torchcodec": _torchcodec,
        "decord": _decord,
    }[reader]()


def _ours(num_threads: int) -> Read:
    from sfvqa.video import FitSquare, ReadOptions
    from sfvqa.video import fitting as _imported_too  # noqa: F401
    from sfvqa.video.readers import open_here
    from sfvqa.video.readers import pyav as _imported  # noqa: F401

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        with open_here(path, ReadOptions(num_threads=num_threads)) as reader:
            return [frame.pixels for frame in reader.read(indices, FitSquare(SHORTER_EDGE))]

    return read


def _small(pixels: Any) -> Any:
    """Resize to SHORTER_EDGE as a program that uses OpenCV would."""
    import cv2

    height, width = pixels.shape[:2]
    scale = SHORTER_EDGE / min(height, width)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=interpolation)


def _opencv_seek() -> Read:
    import cv2

    cv2.setNumThreads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        frames = []
        for index in indices:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            is_read, pixels = capture.read()
            if is_read:
                frames.append(_small(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
        return frames

    return read


def _opencv_grab() -> Read:
    import cv2

    cv2.setNumThreads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        wanted, frames = set(indices), []
        for index in range(indices[-1] + 1):
            if capture.grab() and index in wanted:
                frames.append(_small(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)))
        return frames

    return read


def _torchcodec() -> Read:
    import torch
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined,unused-ignore]

    torch.set_num_threads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        decoder = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1)
        frames = []
        for index in indices:  # one at a time: a batch of full frames would not fit every memory
            pixels = decoder.get_frames_at([index]).data
            scale = SHORTER_EDGE / min(pixels.shape[-2:])
            size = [round(side * scale) for side in pixels.shape[-2:]]
            small = interpolate(
                pixels.contiguous(memory_format=torch.channels_last), size, mode="bilinear", antialias=True
            )
            frames.append(small[0].permute(1, 2, 0).numpy())
        return frames

    return read


def _decord() -> Read:
    import decord

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        height, width = decord.VideoReader(str(path), num_threads=1)[0].shape[:2]
        scale = SHORTER_EDGE / min(height, width)
        size = {"width": round(width * scale), "height": round(height * scale)}
        reader = decord.VideoReader(str(path), num_threads=1, **size)
        return list(reader.get_batch(indices).asnumpy())

    return read


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
    command = [sys.executable, "-m", "sfvqa.lab.measurements.readers", "--one", reader, str(path)]
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
    rows = [
        [video.description, *(_cell(found[video.name, reader], found[video.name, readers[0]]) for reader in readers)]
        for video in VIDEOS
        if (video.name, readers[0]) in found
    ]
    return markdown_table(["CPU seconds for 64 frames (× ours)", *(READER_NAMES[reader] for reader in readers)], rows)


def _cell(result: Measured, ours: Measured) -> str:
    if result.cpu_seconds is None:
        return "fails"
    ratio = f" ({result.cpu_seconds / ours.cpu_seconds:.2f})" if ours.cpu_seconds and result is not ours else ""
    wrong = "" if result.right == NUM_FRAMES else f", **{result.right} right**"
    wall = f", wall {result.wall_seconds:.2f}" if result.reader.startswith("ours") else ""
    return f"{result.cpu_seconds:.2f}{ratio}{wall}{wrong}"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.readers", __doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/readers"), help="where the videos are kept")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each (three at most of the long videos)")
    parser.add_argument("--videos", nargs="*", choices=[video.name for video in VIDEOS], help="default: all")
    parser.add_argument("--build-only", action="store_true", help="make the videos and measure nothing")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--one", nargs=2, metavar=("READER", "FILE"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Build what is missing, measure, print the table."""
    options = parse_arguments(arguments)
    if options.one:
        run_one(options.one[0], Path(options.one[1]))
        return
    videos = [video for video in VIDEOS if not options.videos or video.name in options.videos]
    paths = [find_or_write(video, options.folder) for video in videos]
    if options.build_only:
        return
    readers = ["ours", "ours-2", *(name for name, module in OTHER_READERS.items() if importlib.util.find_spec(module))]
    results = []
    for video, path in zip(videos, paths, strict=True):
        repeats = min(options.repeats, 3) if video.seconds >= _LONG_SECONDS else options.repeats
        for reader in readers:
            results.append(measure(path, reader, repeats))
            print(results[-1], file=sys.stderr)
    write_figures(options.json, results=[asdict(result) for result in results])
    print(as_table(results))


if __name__ == "__main__":
    main()
