"""`python -m sfvqa.lab.measurements.cpu`: each stage on the CPU, in every way of computing, beside its floor.

`sfvqa profile` measures, one process after the other: the vision tower once, what the language model does in the
median of the repeats.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.beside_transformers import VIDEO
from sfvqa.lab.measurements.numbered_videos import find_or_write

WAYS = (("float32", "none"), ("bfloat16", "none"), ("bfloat16", "8bit"))
NUM_FRAMES = {"bench-0.5b": 16, "bench-smolvlm2-500m": 64, "bench-llava-0.5b": 32}
STAGES = ("vision_tower_seconds", "prefill_seconds", "slow_keys_values_seconds", "decode_seconds_per_token")


def profile(model: str, num_frames: int, way: tuple[str, str], video: Path, options: argparse.Namespace) -> Any:
    """What `sfvqa profile --json` prints."""
    dtype, quantization = way
    command = [sys.executable, "-m", "sfvqa", "profile", str(video), "--model", model, "--random-weights"]
    command += ["--device", "cpu", "--dtype", dtype, "--quant", quantization, "--frames", str(num_frames)]
    command += ["--repeat", str(options.repeats), "--warmup", "0", "--encode-once", "--json", "-q"]
    command += ["--new-tokens", str(options.new_tokens)]
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def row_of(model: str, way: tuple[str, str], measured: Any) -> list[str]:
    """Seconds of each stage, and how many times its floor, where it has one."""
    (point,) = measured["points"]
    cells = []
    for stage in STAGES:
        seconds, floor = point[stage], point["floors"][stage]
        text = f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
        cells.append(f"{text} ({seconds / floor:.1f} ×)" if floor else "")
    after_reading, peak = point["ttft_after_reading_seconds"], point["peak_host_bytes"]
    sizes = f"`{model}`, {point['num_frames']} frames, {point['num_prompt_tokens']:,} tokens"
    return [sizes, ", ".join(word for word in way if word != "none"), *cells, f"{after_reading:.1f} s", _size(peak)]


def _size(peak: int | None) -> str:
    return "" if peak is None else f"{peak / 1e9:.2f} GB"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.cpu", __doc__)
    parser.add_argument("--models", nargs="+", default=list(NUM_FRAMES), choices=list(NUM_FRAMES), metavar="NAME")
    parser.add_argument("--folder", type=Path, default=Path("runs/cpu"), help="where the video is kept")
    parser.add_argument("--video", type=Path, help="look at this one instead")
    parser.add_argument("--frames", type=int, help="instead of 16, 64 and 32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="of the language model, whose medians count")
    parser.add_argument("--new-tokens", type=int, default=24)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the video if need be, measure, print a table."""
    options = parse_arguments(arguments)
    video = options.video or find_or_write(VIDEO, options.folder)
    rows, figures = [], {}
    for model in options.models:
        for way in WAYS:
            measured = profile(model, options.frames or NUM_FRAMES[model], way, video, options)
            rows.append(row_of(model, way, measured))
            figures[f"{model}, {' '.join(way)}"] = measured
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
            write_figures(options.json, profiles=figures)
    heads = ["vision tower", "prefill", "slow keys, values", "each token", "first token after reading", "peak memory"]
    print(markdown_table(["model", "", *heads], rows, num_texts=2))


if __name__ == "__main__":
    main()
