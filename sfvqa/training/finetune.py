"""`python -m sfvqa.training.finetune`: a slow-fast checkpoint learns from a JSON file of conversations about videos.

For several GPUs start it with `torchrun --nproc-per-node N -m` or `accelerate launch -m` in place of `python -m`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from sfvqa.errors import SfvqaError
from sfvqa.training.finetuning import FineTuning, Stage, fine_tune
from sfvqa.training.processes import is_first_process, leave_group
from sfvqa.video.fitting import CropMode
from sfvqa.video.sampling import SamplingStrategy


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    default = FineTuning()
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.finetune", description=__doc__)
    add = parser.add_argument
    add("annotations", type=Path, help='JSON: [{"id", "video", "conversations": [{"from", "value"}, …]}, …]')
    add("--videos", type=Path, required=True, help="the folder that the annotations' paths start from")
    add("--model", required=True, help="a registered model, or a checkpoint folder, as sfvqa.training.convert writes")
    add("--output", type=Path, required=True, help="where the run keeps its state; the result is OUTPUT/checkpoint")
    add("--resume", action="store_true", help="go on from the last state in the output folder")
    add("--stage", type=int, choices=[1, 2], default=int(default.stage), help="1: projector, slow attention; 2: all")
    add("--num-frames", type=int, help="of a video (default, as of the next two: as the checkpoint was trained)")
    add("--sampling", type=SamplingStrategy, choices=[kind for kind in SamplingStrategy if kind.needs_number_alone])
    add("--crop", type=CropMode, choices=list(CropMode))
    add("--num-epochs", type=float, default=default.num_epochs)
    add("--num-steps", type=int, help="instead of epochs")
    add("--batch-size", type=int, default=default.batch_size, help="rows on each device at a time")
    add("--accumulation", type=int, default=default.accumulation, help="of these batches make a step")
    add("--learning-rate", type=float, default=default.learning_rate)
    add("--warmup-share", type=float, default=default.warmup_share, help="of the steps, in which the rate rises")
    add("--weight-decay", type=float, default=default.weight_decay)
    add("--max-gradient-norm", type=float, default=default.max_gradient_norm)
    add("--precision", choices=["float32", "bfloat16", "float16"], default=default.precision)
    add("--gradient-checkpointing", action="store_true", help="compute activations twice to keep fewer")
    add("--freeze-vision", action="store_true", help="leave the vision tower as it is in stage 2 too")
    add("--skip-unreadable", action="store_true", help="leave out videos that cannot be read, with a warning")
    add("--isolate-reading", action="store_true", help="read videos in processes that can be ended if one hangs")
    add("--save-every", type=int, default=default.save_every, help="steps")
    add("--num-kept", type=int, default=default.num_kept, help="saved states, the last ones; each is three models big")
    add("--log-every", type=int, default=default.log_every, help="steps")
    add("--num-workers", type=int, default=default.num_workers, help="processes that read videos ahead")
    add("--seed", type=int, default=default.seed)
    add("--device", default=default.device, help="auto or cpu")
    return parser.parse_args(arguments)


_NOT_OPTIONS = ("annotations", "videos", "model", "output", "resume")


def main(arguments: list[str] | None = None) -> int:
    """Train, and say where the checkpoint is."""
    asked = vars(parse_arguments(arguments))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        chosen = {name: value for name, value in asked.items() if name not in _NOT_OPTIONS}
        options = FineTuning(**chosen | {"stage": Stage(asked["stage"])})
        folder = fine_tune(
            asked["model"], asked["annotations"], asked["videos"], asked["output"], options, resume=asked["resume"]
        )
        leave_group()
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        return int(error.exit_code)
    if is_first_process():
        print(f"{folder}: ask it with `sfvqa ask VIDEO QUESTION --model {folder}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
