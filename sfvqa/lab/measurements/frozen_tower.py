"""`python -m sfvqa.lab.measurements.frozen_tower`: what a second epoch costs where a frozen tower is run once.

Beside it, a tower that is run in every epoch. The model has the sizes of a published one, random weights and a slow
path, and one frame of each video in its prompt; the losses of both ways are compared bit for bit. Each way is kept when
it is done, so that each can be measured by a command of its own.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.inference.video_cache.store import DEFAULT_LIMIT_BYTES, VideoCache
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write
from sfvqa.model.slow_fast import random_model
from sfvqa.training.annotations import Example
from sfvqa.training.finetune import make_trainer
from sfvqa.training.frozen_tower import Looking
from sfvqa.training.options import FineTuning, Stage
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import readable_size

if TYPE_CHECKING:
    import argparse

HYBRID_EVERY = 8
ANEW, ONCE = "every-epoch", "once"
WORDS = {ANEW: "in every epoch", ONCE: "once a video"}


@dataclass(frozen=True)
class Run:
    """Two epochs one way: seconds of each, what was kept on disk, and the loss of every step."""

    tower: str
    first_seconds: float
    second_seconds: float
    kept_bytes: int
    losses: list[float]


class _Clock(TrainerCallback):
    """Seconds of each epoch up to its last step, without what is saved behind it."""

    def __init__(self) -> None:
        self.seconds = list[float]()
        self._began = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.seconds.append(0.0)
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds[-1] = time.perf_counter() - self._began


def with_slow_path(model: str, num_frames: int) -> LoadedCheckpoint:
    """Random weights in the sizes of a registered model, every eighth layer of which looks at `num_frames` frames."""
    checkpoint = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32", random_weights=True))
    config = checkpoint.model.config
    config.hybrid_layers = list(range(0, config.decoder_config.num_hidden_layers, HYBRID_EVERY))
    config.temporal_sampling_stride, config.min_fast_frames, config.training_num_frames = num_frames, 1, num_frames
    any_token = frozenset(range(len(checkpoint.tokenizer)))  # the bundled tokenizer has not the one that ends an answer
    return replace(checkpoint, model=random_model(config, dtype=torch.float32), end_token_ids=any_token)


def measure(model: str, videos: list[Path], num_frames: int, folder: Path, tower: str) -> Run:
    """Train two epochs, a video a step."""
    checkpoint = with_slow_path(model, num_frames)
    shutil.rmtree(run := folder / "run", ignore_errors=True)
    options = FineTuning(
        stage=Stage.BRIDGE,
        num_epochs=2,
        log_every=1,
        device="cpu",
        learning_rate=1e-3,
    )
    sampling = SamplingOptions(num_frames)
    looking = Looking(sampling, CropMode.SQUASH, ReadOptions(isolated=False, num_threads=1))
    examples = [Example(video.stem, video, (("What is shown?", "Numbers over a texture."),)) for video in videos]
    cache = VideoCache(run / "kept", DEFAULT_LIMIT_BYTES if tower == ONCE else 0)
    trainer, clock = make_trainer(checkpoint, examples, looking, run, options, cache), _Clock()
    trainer.add_callback(clock)
    trainer.train()
    kept_bytes = cache.size_bytes()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    shutil.rmtree(run)
    first, second = clock.seconds
    return Run(tower, first, second, kept_bytes, losses)


def table(runs: list[Run]) -> str:
    """Markdown: a row a way."""
    rows = [
        [
            WORDS[run.tower],
            f"{run.first_seconds:.0f} s",
            f"{run.second_seconds:.1f} s",
            f"{run.second_seconds / runs[0].second_seconds:.2f}",
            readable_size(run.kept_bytes) if run.kept_bytes else "nothing",
            f"{sum(one == other for one, other in zip(run.losses, runs[0].losses, strict=True))} of {len(run.losses)}",
        ]
        for run in runs
    ]
    head = ["the tower is run", "first epoch", "second epoch", "of the first row's", "kept on disk", "equal losses"]
    return markdown_table(head, rows)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.frozen_tower", __doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/frozen_tower"), help="where videos and figures are kept"
    )
    parser.add_argument("--model", default="bench-smolvlm2-500m", help="whose sizes, with random weights")
    parser.add_argument("--videos", type=int, default=16, help="how many")
    parser.add_argument("--frames", type=int, default=6, help="frames of each")
    parser.add_argument("--only", choices=WORDS, help="measure this way alone")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Make the videos if need be, measure what is not measured yet, print the table."""
    asked = parse_arguments(arguments)
    recipe = NumberedVideo("", "10 s, 360p, H.264", "libx264", 640, 360, 10, 250)
    videos = [
        find_or_write(
            replace(recipe, name=f"{number:03}.mp4", group=50 + number), asked.folder
        )  # no two have one content
        for number in range(asked.videos)
    ]
    found = []
    for tower in WORDS:
        figures = asked.folder / f"{tower}.json"
        if not figures.exists() and asked.only in (None, tower):
            run = measure(asked.model, videos, asked.frames, asked.folder, tower)
            figures.write_text(json.dumps(asdict(run)), encoding="utf-8")
        if figures.exists():
            found.append(Run(**json.loads(figures.read_text(encoding="utf-8"))))
    print(table(found))


if __name__ == "__main__":
    main()
