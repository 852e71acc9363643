"""`python -m sfvqa.lab.measurements.cpu`: each stage on the CPU, in every way of computing, beside its floor.

`sfvqa profile` measures, one process after the other: the vision tower once, what the language model does in the
median of the repeats. The error is that of the first token's logits against float32's, with the same weights.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.checkpoints.plan import config_of
from sfvqa.inference.prefill import prefill
from sfvqa.lab.commands import errors_without_traceback, markdown_table, measurement_parser, write_figures
from sfvqa.lab.measurements.beside_transformers import VIDEO
from sfvqa.lab.measurements.numbered_videos import find_or_write
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastForConditionalGeneration
from sfvqa.model.slow_fast import random_model
from sfvqa.registry import find_model

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


@torch.inference_mode()
def logits_of(model: SlowFastForConditionalGeneration, num_frames: int = 8) -> Tensor:
    """Of a prompt about noise, `[V]`, in float32."""
    side = model.config.vision.image_size
    noise = torch.randn(num_frames, 3, side, side, generator=torch.Generator().manual_seed(0))
    tokens = model.encode_video(noise.to(model.dtype))
    prompt = [*range(1, 11), *[IMAGE_TOKEN_ID] * len(tokens.fast), *range(20, 60)]
    return prefill(model, [prompt], [tokens]).logits[0].float()


def relative_errors(name: str) -> dict[tuple[str, str], float]:
    """Of each way but float32, whose weights are those of bfloat16 here."""
    plain: Any = random_model(config_of(find_model(name)), dtype=torch.bfloat16)
    exact = logits_of(plain.float())
    errors = {}
    for dtype, quantization in WAYS[1:]:
        settings = ModelSettings(name, "cpu", dtype, quantization=quantization, random_weights=True)
        found = logits_of(load_checkpoint(settings).model)
        errors[dtype, quantization] = float((found - exact).norm() / exact.norm())
    return errors


def row_of(model: str, way: tuple[str, str], measured: Any, error: float | None) -> list[str]:
    """Seconds of each stage, and how many times its floor, where it has one."""
    (point,) = measured["points"]
    cells = []
    for stage in STAGES:
        seconds, floor = point[stage], point["floors"][stage]
        text = f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
        cells.append(f"{text} ({seconds / floor:.1f} ×)" if floor else "")
    after_reading, peak = point["ttft_after_reading_seconds"], point["peak_host_bytes"]
    sizes = f"`{model}`, {point['num_frames']} frames, {point['num_prompt_tokens']:,} tokens"
    name = ", ".join(word for word in way if word != "none")
    apart = "" if error is None else f"{error:.1%}"
    return [sizes, name, *cells, f"{after_reading:.1f} s", _size(peak), apart]


def _size(peak: int | None) -> str:
    return "" if peak is None else f"{peak / 1e9:.2f} GB"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = measurement_parser("cpu", __doc__, kept="the video is")
    parser.add_argument("--models", nargs="+", default=list(NUM_FRAMES), choices=list(NUM_FRAMES), metavar="NAME")
    parser.add_argument("--video", type=Path, help="look at this one instead")
    parser.add_argument("--frames", type=int, help="instead of 16, 64 and 32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=24)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the video if need be, measure, print a table."""
    options = parse_arguments(arguments)
    video = options.video or find_or_write(VIDEO, options.folder)
    rows, figures = [], {}
    for model in options.models:
        errors = relative_errors(model)
        for way in WAYS:
            measured = profile(model, options.frames or NUM_FRAMES[model], way, video, options)
            rows.append(row_of(model, way, measured, errors.get(way)))
            figures[f"{model}, {' '.join(way)}"] = measured
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
            write_figures(options.json, profiles=figures)
    heads = [
        "vision tower",
        "prefill",
        "slow keys, values",
        "each token",
        "first token after reading",
        "peak memory",
        "error",
    ]
    print(markdown_table(["model", "", *heads], rows, num_texts=2))


if __name__ == "__main__":
    main()
