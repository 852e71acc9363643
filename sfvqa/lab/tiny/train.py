"""The recipe of the bundled model: what sees, then stills, videos, odd questions; resumable, a function of its seed.

Order and reasons: on videos from the start, with short answers, the model stays at guessing which object was meant.
A tower that can already tell shapes, colours and digits, and a decoder that can already answer about a still, leave
only motion, order and time to be learned from videos. Odd questions come in every stage, and most in the last, which
goes over everything once more. That one is run twice from the same start, the second time with questions about things
that are not there; the model is the mean of both, which errs less often than either.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.errors import UsageError
from sfvqa.lab.commands import command_parser, errors_without_traceback
from sfvqa.lab.motion_heads import MotionHeads
from sfvqa.lab.rows import RowBuilder
from sfvqa.lab.seeing import see
from sfvqa.lab.tiny.conversations import HARD, MISNAMED, ODD, STILLS, VIDEOS, Mixture
from sfvqa.lab.tiny.language_stage import Examiner, LanguageStage, PoolOptions
from sfvqa.lab.tiny.network import WIDTH, build_tiny, train_tokenizer
from sfvqa.lab.tiny.other_videos import OtherVideos
from sfvqa.lab.tiny.pictures import digest, load_pictures
from sfvqa.lab.tiny.questions import Family
from sfvqa.lab.tiny.scenes import NUM_FRAMES
from sfvqa.lab.tiny.vision_stage import DenseHeads, dense_batch
from sfvqa.lab.training_loop import TrainingLoop

if TYPE_CHECKING:
    import argparse

    from transformers import PreTrainedTokenizerFast

    from sfvqa.model import SlowFastForConditionalGeneration


logger = logging.getLogger(__name__)

STILL_POOL = PoolOptions(window=4096, fresh_per_step=32, first_window=256, stills=0.85, others=0.15)
VIDEO_POOL = PoolOptions(window=2048, fresh_per_step=6, first_window=256, stills=0.06, others=0.14)


class Stage(IntEnum):
    """In their order; what a stage draws is seeded by its number."""

    SEEING = 0
    STILLS = 1
    VIDEOS = 2
    ODD = 3
    MISNAMED = 4


@dataclass(frozen=True)
class Recipe:
    """Lengths in steps, learning rates and batches of the stages; the third turns to `hard` on its way."""

    seed: int = 0
    num_steps: tuple[int, ...] = (2400, 450, 3600, 3000, 3000)
    learning_rates: tuple[float, ...] = (8e-3, 4e-3, 3e-3, 2e-3, 2e-3)
    scenes_per_step: int = 8
    stills: Mixture = STILLS
    videos: Mixture = VIDEOS
    hard: Mixture = HARD
    hard_after: int = 750  # steps of the third stage
    odd: Mixture = ODD
    misnamed: Mixture = MISNAMED
    rows_at_once: int = 8
    exam_every: int = 250
    exam_questions: int = 40
    exam_videos: int = 120
    save_every: int = 250
    still_pool: PoolOptions = STILL_POOL
    video_pool: PoolOptions = VIDEO_POOL

    def scaled(self, scale: float) -> Recipe:
        """The same recipe with every stage `scale` times as long, one step at least."""
        steps = tuple(max(1, round(number * scale)) for number in self.num_steps)
        return replace(self, num_steps=steps, hard_after=round(self.hard_after * scale))

    def mixture(self, stage: Stage, step: int) -> Mixture:
        """What is asked at a step of a stage."""
        if stage is Stage.VIDEOS:
            return self.videos if step < self.hard_after else self.hard
        return {Stage.STILLS: self.stills, Stage.ODD: self.odd, Stage.MISNAMED: self.misnamed}[stage]


class Trainer:
    """A model on its way through the recipe; `folder` keeps the state of every stage, for a stopped run to resume."""

    def __init__(
        self,
        recipe: Recipe,
        tokenizer: PreTrainedTokenizerFast,
        folder: Path,
        others: OtherVideos,
        device: torch.device | str = "cpu",
    ) -> None:
        self.recipe = recipe
        self.others = others
        self.folder = folder
        self.tokenizer = tokenizer
        self.model: SlowFastForConditionalGeneration = build_tiny(tokenizer, recipe.seed)
        self.model.to(torch.device(device))  # type: ignore[arg-type]  # transformers wraps `to` and loses its types
        self.model.train()
        self._grid = self.model.config.grid_side(NUM_FRAMES)  # visual tokens of a video's frame in each direction
        self.heads = DenseHeads(self.model.config.vision.dims[-1], WIDTH, self._grid).to(device)
        self.motion_heads = MotionHeads(WIDTH, self.model.config.min_fast_frames, self._grid).to(device)
        self.rows = RowBuilder(tokenizer)

    def run(self, *, resume: bool = False) -> None:
        """Go through the recipe, or with `resume` through what is left of it; UsageError where nothing was saved."""
        if resume:
            self.load()
        else:
            for stage in Stage:
                self._state_path(stage).unlink(missing_ok=True)
        for stage in Stage:
            loop = self._loop(stage)
            if loop.step < loop.num_steps:
                logger.info("%s", stage.name.lower())
                self._see(loop) if stage is Stage.SEEING else self._answer(loop, stage)
        self._average()

    def load(self) -> None:
        """Go to the saved state; UsageError when there is none, or it belongs to another seed."""
        if not self._state_path(Stage.SEEING).exists():
            raise UsageError(f"{self.folder} holds no run to resume.", "Leave --resume away to begin one.")
        for stage in Stage:
            self._loop(stage)
        self._average()

    def _average(self) -> None:
        """The mean of what both last stages ended with, where they did: it errs less often than either of them."""
        ends = [self._state_path(stage) for stage in (Stage.ODD, Stage.MISNAMED)]
        if all(path.exists() for path in ends):
            one, other = (torch.load(path, map_location="cpu", weights_only=True)["modules"]["model"] for path in ends)
            self.model.load_state_dict({name: (tensor + other[name]) / 2 for name, tensor in one.items()})

    def _state_path(self, stage: Stage) -> Path:
        return self.folder / f"{stage.name.lower()}.pt"

    def _loop(self, stage: Stage) -> TrainingLoop:
        """The loop of a stage, with what was saved of it: first what sees learns, then the decoder alone."""
        model, recipe = self.model, self.recipe
        if stage is Stage.MISNAMED:  # it begins where the one before it began
            self._loop(Stage.VIDEOS)
        for part in (model.vision_tower, model.projector):
            part.requires_grad_(stage is Stage.SEEING)
        if stage is Stage.SEEING:
            modules = {"tower": model.vision_tower, "projector": model.projector, "heads": self.heads}
        elif stage is Stage.STILLS:
            modules = {"model": model}
        else:
            modules = {"model": model, "motion_heads": self.motion_heads}
        read_outs = (self.heads, self.motion_heads, model.get_input_embeddings())
        return TrainingLoop(
            modules,
            self._state_path(stage),
            num_steps=recipe.num_steps[stage],
            rate=recipe.learning_rates[stage],
            outside=[parameter for part in read_outs for parameter in part.parameters()],
            seed=recipe.seed,
            save_every=recipe.save_every,
            largest_gradient=50.0 if stage is Stage.SEEING else 1.0,
        )

    def _see(self, loop: TrainingLoop) -> None:
        model, recipe = self.model, self.recipe

        def take_step(step: int) -> dict[str, float]:
            rng = np.random.default_rng([recipe.seed, Stage.SEEING, step])
            size = model.config.vision.image_size
            pixels, targets = dense_batch(rng, recipe.scenes_per_step, size, self._grid, self.others)
            loss, right = self.heads.loss(*see(model, pixels), targets.to(model.device))
            loss.backward()
            return {"loss": loss.item(), **right}

        loop.run(take_step)

    def _answer(self, loop: TrainingLoop, stage: Stage) -> None:
        recipe, still = self.recipe, stage is Stage.STILLS
        pool = recipe.still_pool if still else recipe.video_pool
        motion_heads = None if still else self.motion_heads
        seed = (recipe.seed, min(stage, Stage.ODD))  # the last two see the same videos
        lessons = LanguageStage(self.model, self.rows, pool, seed, self.others, motion_heads)
        examiner = Examiner(
            self.model, self.rows, still=still, seed=recipe.seed, others=self.others, num_videos=recipe.exam_videos
        )

        def take_step(step: int) -> dict[str, float]:
            return {"loss": lessons.accumulate(step, recipe.mixture(stage, step), recipe.rows_at_once)}

        def exam(step: int) -> None:
            if step % recipe.exam_every and step != loop.num_steps:
                return
            logger.info("  right: %s", _as_text(examiner.accuracy(recipe.exam_questions)))
            if not still:
                blind = examiner.accuracy(recipe.exam_questions, (Family.FLASH, Family.DIGIT), without_slow=True)
                logger.info("  right without slow tokens: %s", _as_text(blind))

        loop.run(take_step, exam)


def _as_text(shares: dict[str, float]) -> str:
    return " ".join(f"{name} {share:.0%}" for name, share in shares.items())


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint folder: config, tokenizer, weights in float32, generation settings."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer.model.train(False)
    trainer.model.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("tiny.train", __doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/tiny/checkpoint"), help="where the checkpoint goes")
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="where the run keeps its state")
    parser.add_argument(
        "--pictures", type=Path, default=Path("runs/pictures"), help="what sfvqa.lab.tiny.pictures made"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="length of every stage, as a share of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the run folder")
    parser.add_argument("--write-only", action="store_true", help="write the saved state as a checkpoint")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Train, then write the checkpoint folder."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    began = time.monotonic()
    tokenizer = train_tokenizer(seed=options.seed)
    pictures = load_pictures(options.pictures)
    logger.info("%s, digest %s", options.pictures, digest(pictures))
    recipe = Recipe(seed=options.seed).scaled(options.scale)
    trainer = Trainer(recipe, tokenizer, options.run, OtherVideos(pictures), options.device)
    if options.write_only:
        trainer.load()
    else:
        trainer.run(resume=options.resume)
    save_checkpoint(trainer, options.output)
    logger.info("%s after %.1f minutes", options.output, (time.monotonic() - began) / 60)


if __name__ == "__main__":
    main()
