"""`python -m sfvqa.lab.adapters`: what LoRA and QLoRA learn of a slow path, beside stage 1, and what they take.

Stage 1 is validated as it learns, on a tenth of its videos, and its curve is printed below the table. The model and its
videos are those of `sfvqa.lab.slow_path`, whose folder this goes on in: each form starts from its converted model, or
from what its stage 1 made of that, and is one command. A form that was stopped goes on.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table, write_figures
from sfvqa.lab.measurements.training_memory import run_finetune
from sfvqa.lab.slow_path import (
    TESTING,
    TRAINING,
    Settings,
    annotate,
    are_right,
    learn_slow_path,
    share,
    teach_base,
    write_videos,
)
from sfvqa.lab.training_loop import save_whole
from sfvqa.training.run_folder import last_state
from sfvqa.training.validation import Figures, read_figures
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    import argparse

_LORA = ("--lora-rank", "16", "--learning-rate", "1e-3")
_FROM_THE_START = ("--slow-learning-rate", "1e-2", "--num-steps", "400")
_AFTER_STAGE_1 = ("--num-steps", "100")
_IN_4_BITS = ("--quantization", "4bit")
STAGE_1 = "stage 1"
FORMS = {
    STAGE_1: ("--stage", "1", "--learning-rate", "1e-2", "--num-steps", "400", "--validation", "0.1"),
    "LoRA": (*_LORA, *_FROM_THE_START),
    "QLoRA": (*_LORA, *_FROM_THE_START, *_IN_4_BITS),
    "LoRA after stage 1": (*_LORA, *_AFTER_STAGE_1),
    "QLoRA after stage 1": (*_LORA, *_AFTER_STAGE_1, *_IN_4_BITS),
}


@dataclass(frozen=True)
class Outcome:
    """Right answers of a form about fresh videos, `in_4_bits` where it was trained so, and what training it took."""

    form: str
    num_videos: int
    flash: int
    num_others: int
    others: int
    seconds: float
    peak_bytes: int


def measure(form: str, start: Path, settings: Settings, folder: Path) -> Outcome:
    """Train a form by its command, and ask about fresh videos."""
    flags, run = FORMS[form], run_of(form, folder)
    annotations = annotate(write_videos(folder / "training", TRAINING, settings.num_videos))
    arguments = [str(annotations), "--videos", str(annotations.parent), "--model", str(start), "--output", str(run)]
    arguments += [*flags, "--batch-size", str(settings.rows_per_step), "--save-every", "50", "--device", "cpu"]
    peak, seconds = _train(arguments, run)
    videos = write_videos(folder / "testing", TESTING, settings.num_tests)
    if form == STAGE_1:
        right = np.array(are_right(run / "checkpoint", videos))
    else:
        quantization = "4bit" if "4bit" in flags else "none"
        right = np.array(are_right(start, videos, adapter=run / "adapter", quantization=quantization))
    others = right[:, 1:]
    return Outcome(form, len(videos), int(right[:, 0].sum()), others.size, int(others.sum()), seconds, peak)


def run_of(form: str, folder: Path) -> Path:
    """Where a form is trained."""
    return folder / form.replace(" ", "-")


def _train(arguments: list[str], run: Path) -> tuple[int, float]:
    """The most bytes that a run held, and its seconds, those before it was stopped included."""
    kept = run.with_suffix(".took.json")
    took: dict[str, Any] = {"peak": 0, "seconds": 0.0, "is_done": False}
    if kept.exists():
        took = json.loads(kept.read_text())
    if not took["is_done"]:
        began = time.perf_counter()
        try:
            peak, _ = run_finetune([*arguments, *(["--resume"] if any(run.glob("checkpoint-*")) else [])])
            took |= {"peak": max(peak, took["peak"]), "is_done": True}
        finally:
            took["seconds"] += time.perf_counter() - began
            save_whole(json.dumps(took), kept)
    return took["peak"], took["seconds"]


def table(outcomes: list[Outcome]) -> str:
    """Markdown: a row a form."""
    rows = [
        [
            one.form,
            share(one.flash, one.num_videos),
            share(one.others, one.num_others),
            f"{one.seconds / 60:.1f} min",
            readable_size(one.peak_bytes),
        ]
        for one in outcomes
    ]
    return markdown_table(["training", "flash", "other questions", "time", "memory"], rows)


def curve(run: Path) -> list[Figures]:
    """What a run with validation measured, before its first step and whenever a state was saved."""
    untrained = read_figures(run)["untrained"]
    logged = json.loads((last_state(run) / "trainer_state.json").read_text())["log_history"]
    steps = [each["step"] for each in logged if "eval_loss" in each]
    return [replace(untrained, step=0), *(Figures.at_step(step, logged, untrained.answers) for step in steps)]


def curve_table(measured: list[Figures]) -> str:
    """Markdown: a row a validation."""
    rows = [[str(each.step), f"{each.loss:.3f}", share(each.exact, each.answers)] for each in measured]
    return markdown_table(["step", "validation loss", "right answers"], rows, num_texts=0)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("adapters", __doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/slow-path-llava_onevision"), help="of slow_path")
    parser.add_argument("--forms", default=",".join(FORMS), help="which, by commas")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure the forms that have no figures yet, and print the table."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    settings, folder = Settings("llava_onevision"), options.run
    converted, trained = learn_slow_path(settings, teach_base(settings, folder), folder)
    outcomes = []
    for form in options.forms.split(","):
        kept = folder / f"{form}.json"
        if not kept.exists():
            start = trained if "after" in form else converted
            save_whole(json.dumps(asdict(measure(form, start, settings, folder))), kept)
        outcomes.append(Outcome(**json.loads(kept.read_text())))
    write_figures(options.json, outcomes=[asdict(one) for one in outcomes])
    print(table(outcomes))
    if any(one.form == STAGE_1 for one in outcomes):
        print(f"\n{curve_table(curve(run_of(STAGE_1, folder)))}")


if __name__ == "__main__":
    main()
