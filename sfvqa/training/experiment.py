"""`python -m sfvqa.training.experiment`: train and score every cell that has no result yet; stop it at any time.

Once the first cell trains, the folder holds what all share, and other processes may train other cells there (--only).
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import torch

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.training.comparison.cells import Settings
from sfvqa.training.comparison.experiment import Experiment, result_path

CHANGEABLE = {
    "num_frames": "frames of the comparison at one number of frames",
    "width": "of the decoder",
    "num_layers": "of the decoder",
    "see_steps": "steps of the shared vision tower",
    "base_steps": "steps of the shared plain decoder",
    "still_steps": "of those, how many on single frames",
    "few_steps": "and then on a burst's few frames",
    "num_training_videos": "videos that cells are trained on",
    "num_test_videos": "videos that they are scored with",
    "num_steps": "steps of a cell of the main comparison",
    "num_small_steps": "steps of a cell of the others",
    "rows_per_step": "videos a step",
    "rows_at_once": "of those, how many pass through the model together: a matter of memory",
    "num_seeds": "seeds of the main comparison",
    "quality": "x264's constant rate factor of the videos",
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.experiment", description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/experiment"), help="the folder of the experiment")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="steps and videos, as a share of the whole")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cells by name, as in 'main-*-seed0'")
    parser.add_argument("--list", action="store_true", help="name the cells, and which are done")
    for name, meaning in CHANGEABLE.items():
        default = getattr(Settings(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"{meaning} (default: {default} × scale)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    options = parse_arguments(arguments)
    changed = {name: getattr(options, name) for name in CHANGEABLE if getattr(options, name) is not None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        if options.threads is not None:
            if options.threads < 1:
                raise UsageError(f"threads is {options.threads}.", "It must be at least 1.")
            torch.set_num_threads(options.threads)
        experiment = Experiment(replace(Settings().scaled(options.scale), **changed), options.run, options.device)
        _run_or_list(experiment, options.only, only_list=options.list)
    except SfvqaError as error:
        raise SystemExit(str(error)) from None


def _run_or_list(experiment: Experiment, pattern: str, *, only_list: bool) -> None:
    cells = [cell for cell in experiment.cells if fnmatch(cell.name, pattern)]
    if not cells:
        raise UsageError(f"No cell is named like {pattern!r}.", "--list names all there are.")
    for cell in cells:
        if only_list:
            print(cell.name, "done" if result_path(experiment.folder, cell).exists() else "not run")
            continue
        families = experiment.run(cell)["families"].values()
        right, total = (sum(family[name] for family in families) for name in ("right", "total"))
        print(f"{cell.name}: {right} of {total} right, {right / total:.1%}", flush=True)


if __name__ == "__main__":
    main()
