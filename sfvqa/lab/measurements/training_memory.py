"""`python -m sfvqa.lab.measurements.training_memory`: what `finetune --dry-run` says of memory, and what runs take.

Each run is a process of its own on the CPU, with random weights in the sizes of a registered model; of each the system
tells the most that was resident. What was measured is kept, so that a run that was stopped goes on with the next form;
estimates are made anew.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

import sfvqa
from sfvqa.checkpoints.find import locate
from sfvqa.checkpoints.load import load_tokenizer
from sfvqa.checkpoints.plan import config_of
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.training_loop import save_whole
from sfvqa.model.slow_fast import random_model
from sfvqa.registry import BUNDLED_MODEL, find_model
from sfvqa.training.dry_run import dry_run
from sfvqa.training.finetune import options_of
from sfvqa.training.finetune import parse_arguments as parse_finetuning
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    import argparse

    from sfvqa.training.memory import TrainingMemory

FORMS = {
    "stage 1": ["--stage", "1"],
    "stage 1, bfloat16": ["--stage", "1", "--precision", "bfloat16"],
    "stage 2": [],
    "stage 2, gradient checkpointing": ["--gradient-checkpointing"],
    "stage 2, 8-bit optimizer": ["--optimizer", "adamw_bnb_8bit"],
    "LoRA": ["--lora-rank", "16"],
    "LoRA, bfloat16": ["--lora-rank", "16", "--precision", "bfloat16"],
    "QLoRA": ["--lora-rank", "16", "--quantization", "4bit"],
    "QLoRA, bfloat16": ["--lora-rank", "16", "--quantization", "4bit", "--precision", "bfloat16"],
    "QLoRA, bfloat16, gradient checkpointing": [
        *("--lora-rank", "16", "--quantization", "4bit", "--precision", "bfloat16", "--gradient-checkpointing"),
    ],
    "LoRA, batches of 2": ["--lora-rank", "16", "--batch-size", "2"],
    "LoRA, accumulation": ["--lora-rank", "16", "--accumulation", "2"],
    "stage 1, validation": ["--stage", "1", "--validation", "0.3"],
}
_VIDEOS = Path(sfvqa.__file__).parent / "assets" / "demo"
_SECONDS_BETWEEN_LOOKS = 0.05


@dataclass(frozen=True)
class Measured:
    """What a form of training took."""

    peak_bytes: int
    seconds: float


def write_model(name: str, folder: Path) -> Path:
    """A checkpoint with random weights in the sizes of a registered model."""
    if not (folder / "tokenizer.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        random_model(config_of(find_model(name)), dtype=torch.bfloat16).save_pretrained(folder)
        load_tokenizer(locate(BUNDLED_MODEL).folder).save_pretrained(folder)
    return folder


def write_annotations(path: Path) -> Path:
    """A question about each of the demo videos."""
    said = [{"from": "human", "value": "Describe the video."}, {"from": "gpt", "value": "A red circle moves left."}]
    entries = [{"id": one.stem, "video": one.name, "conversations": said} for one in sorted(_VIDEOS.glob("*.mp4"))]
    save_whole(json.dumps(entries), path)
    return path


def arguments_of(form: str, model: Path, annotations: Path, num_frames: int, run: Path) -> list[str]:
    """The command line of a run of two steps."""
    flags = [*FORMS[form], "--num-frames", str(num_frames), "--num-steps", "2", "--device", "cpu", "--log-every", "1"]
    return [str(annotations), "--videos", str(_VIDEOS), "--model", str(model), "--output", str(run), *flags]


def estimate(arguments: list[str]) -> TrainingMemory:
    """What a dry run says of it."""
    asked = parse_finetuning(arguments)
    return dry_run(asked.model, Path(asked.annotations[0]), asked.videos, options_of(vars(asked))).memory


def measure(arguments: list[str], run: Path) -> Measured:
    """Take the run, and leave nothing of it."""
    shutil.rmtree(run, ignore_errors=True)
    try:
        return Measured(*run_finetune(arguments))
    finally:
        shutil.rmtree(run, ignore_errors=True)


def run_finetune(arguments: list[str]) -> tuple[int, float]:
    """Run the command in a process of its own; the most bytes that it held, and the seconds it took."""
    began, peak = time.perf_counter(), 0
    running = subprocess.Popen([sys.executable, "-m", "sfvqa.training.finetune", *arguments], stdout=sys.stderr)
    while running.poll() is None:
        peak = max(peak, _resident_bytes(running.pid))
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    if running.returncode:
        raise SystemExit(running.returncode)
    return peak, time.perf_counter() - began


def _resident_bytes(pid: int) -> int:
    """The most that a process has held so far."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def table(peaks: dict[str, tuple[TrainingMemory, Measured]]) -> str:
    """Markdown: a row a form, with the phase in which the estimate is highest."""
    rows = [
        [
            form,
            max(estimated.phases, key=lambda phase: estimated.phases[phase]),
            readable_size(estimated.peak_bytes),
            readable_size(measured.peak_bytes),
            f"{100 * (estimated.peak_bytes / measured.peak_bytes - 1):+.0f} %",
        ]
        for form, (estimated, measured) in peaks.items()
    ]
    return markdown_table(["training", "highest in", "estimated", "measured", "off by"], rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.training_memory", __doc__)
    parser.add_argument("--model", default="bench-0.5b", help="a registered model, whose sizes are taken")
    parser.add_argument("--frames", type=int, default=16, help="of each video")
    parser.add_argument("--forms", default=",".join(FORMS), help="which, by commas")
    parser.add_argument("--folder", type=Path, default=Path("runs", "training-memory"), help="where all is kept")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure the forms that have no figures yet, and print the table."""
    options = parse_arguments(arguments)
    folder: Path = options.folder
    model = write_model(options.model, folder / options.model)
    annotations = write_annotations(folder / "annotations.json")
    run, peaks = folder / "run", {}
    for form in re.split(r",(?! )", options.forms):
        command = arguments_of(form, model, annotations, options.frames, run)
        kept = folder / f"{options.model} {options.frames} {form}.json"
        if not kept.exists():
            save_whole(json.dumps(asdict(measure(command, run))), kept)
        peaks[form] = (estimate(command), Measured(**json.loads(kept.read_text())))
    figures = {form: {"estimated": asdict(said), "measured": asdict(was)} for form, (said, was) in peaks.items()}
    write_figures(options.json, model=options.model, frames=options.frames, peaks=figures)
    print(table(peaks))


if __name__ == "__main__":
    main()
