"""The recipe of the bundled model: what sees, then stills, videos, odd questions; resumable, a function of its seed.

Order and reasons: on videos from the start, with short answers, the model stays at guessing which object was meant.
A tower that can already tell shapes, colours and digits, and a decoder that can already answer about a still, leave
only motion, order and time to be learned from videos. Odd questions come in every stage, and most in the last, which
goes over everything once more in small steps.
"""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sfvqa.training.conversations import HARD, ODD, STILLS, VIDEOS, Mixture, RowBuilder
from sfvqa.training.language_stage import Examiner, LanguageStage
from sfvqa.training.motion_heads import MotionHeads
from sfvqa.training.optimizers import make_optimizers, set_learning_rate
from sfvqa.training.questions import Family
from sfvqa.training.scenes import NUM_FRAMES
from sfvqa.training.tiny_model import WIDTH, build_tiny
from sfvqa.training.video_pool import PoolOptions
from sfvqa.training.vision_stage import DenseHeads, dense_batch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from sfvqa.model import SlowFastForConditionalGeneration
    from sfvqa.training.other_videos import OtherVideos

logger = logging.getLogger(__name__)

SEE, ANSWER_STILLS, ANSWER_VIDEOS, ANSWER_ODD = 0, 1, 2, 3
STAGE_NAMES = ("seeing", "stills", "videos", "odd")
STILL_POOL = PoolOptions(window=4096, fresh_per_step=32, first_window=256, stills=0.85, others=0.15)
VIDEO_POOL = PoolOptions(window=2048, fresh_per_step=6, first_window=256, stills=0.06, others=0.14)


@dataclass(frozen=True)
class Recipe:
    """Lengths in steps, learning rates and batches of the four stages; the third turns to `hard` on its way."""

    seed: int = 0
    num_steps: tuple[int, int, int, int] = (2400, 450, 3600, 800)
    learning_rates: tuple[float, float, float, float] = (8e-3, 4e-3, 3e-3, 1.5e-3)
    scenes_per_step: int = 8
    stills: Mixture = STILLS
    videos: Mixture = VIDEOS
    hard: Mixture = HARD
    hard_after: int = 750  # steps of the third stage
    odd: Mixture = ODD
    rows_at_once: int = 8
    log_every: int = 50
    exam_every: int = 250
    exam_questions: int = 40
    save_every: int = 250
    still_pool: PoolOptions = STILL_POOL
    video_pool: PoolOptions = VIDEO_POOL

    def scaled(self, scale: float) -> Recipe:
        """The same recipe with every stage `scale` times as long, one step at least."""
        steps = tuple(max(1, round(number * scale)) for number in self.num_steps)
        hard_after = round(self.hard_after * scale)
        return replace(self, num_steps=(steps[0], steps[1], steps[2], steps[3]), hard_after=hard_after)


class Trainer:
    """A model on its way through the recipe; `folder` keeps its state so that a stopped run goes on where it was."""

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
        self.heads = DenseHeads(self.model.config.vision.dims[-1], WIDTH, self._grid).to(device)
        self.motion_heads = MotionHeads(WIDTH, self.model.config.min_fast_frames, self._grid).to(device)
        self.rows = RowBuilder(tokenizer)
        self.stage, self.step = SEE, 0
        self.optimizers: list[torch.optim.Optimizer] = []

    @property
    def _grid(self) -> int:
        """Visual tokens of a video's frame in each direction."""
        return self.model.config.grid_side(NUM_FRAMES)

    # --- state -----------------------------------------------------------------------------------------------------

    @property
    def state_path(self) -> Path:
        """The file that a run resumes from."""
        return self.folder / "state.pt"

    def save(self) -> None:
        """Write the state whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.state_path.with_suffix(".unfinished")
        state = {
            "stage": self.stage,
            "step": self.step,
            "seed": self.recipe.seed,
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "motion_heads": self.motion_heads.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }
        torch.save(state, unfinished)
        os.replace(unfinished, self.state_path)  # noqa: PTH105 - atomic on every system

    def resume(self) -> None:
        """Go back to the saved state; ValueError when it belongs to another seed."""
        state: dict[str, Any] = torch.load(self.state_path, map_location="cpu", weights_only=True)
        if state["seed"] != self.recipe.seed:
            raise ValueError(f"{self.state_path} is of seed {state['seed']}, not {self.recipe.seed}")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.motion_heads.load_state_dict(state["motion_heads"])
        self.stage, self.step = state["stage"], state["step"]
        if state["optimizers"] and self.stage <= ANSWER_ODD:
            self.optimizers = self._make_optimizers()
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    # --- the stages ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go through what is left of the recipe."""
        while self.stage <= ANSWER_ODD:
            take_step, exam = self._seeing() if self.stage == SEE else self._answering()
            if not self.optimizers:
                self.optimizers = self._make_optimizers()
            self._run_stage(take_step, exam)
            self.stage, self.step, self.optimizers = self.stage + 1, 0, []
            self.save()

    def _run_stage(self, take_step: Callable[[int], dict[str, float]], exam: Callable[[], None]) -> None:
        recipe, total = self.recipe, self.recipe.num_steps[self.stage]
        means: dict[str, float] = {}
        began = time.monotonic()
        while self.step < total:
            self._set_learning_rate(self.step / total)
            for optimizer in self.optimizers:
                optimizer.zero_grad()
            measured = take_step(self.step)
            nn.utils.clip_grad_norm_(self._parameters(), 1.0 if self.stage else 50.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            means = {name: 0.95 * means.get(name, value) + 0.05 * value for name, value in measured.items()}
            if self.step % recipe.log_every == 0 or self.step == total:
                figures = " ".join(f"{name} {value:.3f}" for name, value in means.items())
                minutes = (time.monotonic() - began) / 60
                logger.info("%s %d/%d %.1f min: %s", STAGE_NAMES[self.stage], self.step, total, minutes, figures)
            if self.step % recipe.exam_every == 0 or self.step == total:
                exam()
            if self.step % recipe.save_every == 0:
                self.save()

    def _seeing(self) -> tuple[Callable[[int], dict[str, float]], Callable[[], None]]:
        model, recipe = self.model, self.recipe
        vision = model.config.vision

        def take_step(step: int) -> dict[str, float]:
            rng = np.random.default_rng([recipe.seed, SEE, step])
            pixels, targets = dense_batch(rng, recipe.scenes_per_step, vision.image_size, self._grid, self.others)
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                features = model.vision_tower(pixels.to(model.device))
                tokens = model.projector(features).float()
            features, tokens, pooled = (part.flatten(1, 2) for part in (features.float(), tokens, model.pool(tokens)))
            loss, right = self.heads.loss(features, tokens, pooled, targets.to(model.device))
            loss.backward()
            return {"loss": loss.item(), **right}

        return take_step, lambda: None

    def _answering(self) -> tuple[Callable[[int], dict[str, float]], Callable[[], None]]:
        recipe, still = self.recipe, self.stage == ANSWER_STILLS
        pool = recipe.still_pool if still else recipe.video_pool
        motion_heads = None if still else self.motion_heads
        stage = LanguageStage(self.model, self.rows, pool, (recipe.seed, self.stage), self.others, motion_heads)
        examiner = Examiner(self.model, self.rows, still=still, seed=recipe.seed, others=self.others)

        def take_step(step: int) -> dict[str, float]:
            return {"loss": stage.accumulate(step, self._mixture(step), recipe.rows_at_once)}

        def exam() -> None:
            shares = examiner.accuracy(recipe.exam_questions)
            logger.info("  right: %s", _as_text(shares))
            if not still:
                blind = examiner.accuracy(recipe.exam_questions, (Family.FLASH, Family.DIGIT), without_slow=True)
                logger.info("  right without slow tokens: %s", _as_text(blind))

        return take_step, exam

    def _mixture(self, step: int) -> Mixture:
        """What is asked at a step of the stage."""
        recipe = self.recipe
        if self.stage == ANSWER_VIDEOS:
            return recipe.videos if step < recipe.hard_after else recipe.hard
        return recipe.stills if self.stage == ANSWER_STILLS else recipe.odd

    # --- what is learned -------------------------------------------------------------------------------------------

    def _parameters(self) -> list[nn.Parameter]:
        """Those that the stage changes: what sees in the first, the decoder afterwards."""
        seeing = [*self.model.vision_tower.parameters(), *self.model.projector.parameters()]
        if self.stage == SEE:
            return [*seeing, *self.heads.parameters()]
        kept = {id(parameter) for parameter in seeing}
        decoder = [parameter for parameter in self.model.parameters() if id(parameter) not in kept]
        return decoder if self.stage == ANSWER_STILLS else [*decoder, *self.motion_heads.parameters()]

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        """Those of the stage; embeddings and heads lie outside the network, as Muon sees it."""
        outside = {id(parameter) for heads in (self.heads, self.motion_heads) for parameter in heads.parameters()}
        outside |= {id(parameter) for parameter in self.model.get_input_embeddings().parameters()}
        return make_optimizers(self._parameters(), outside)

    def _set_learning_rate(self, progress: float) -> None:
        set_learning_rate(self.optimizers, self.recipe.learning_rates[self.stage], self.step, progress)


def _as_text(shares: dict[str, float]) -> str:
    return " ".join(f"{name} {share:.0%}" for name, share in shares.items())


def save_checkpoint(trainer: Trainer, folder: Path) -> None:
    """Write the checkpoint folder: config, tokenizer, weights in float32, generation settings."""
    folder.mkdir(parents=True, exist_ok=True)
    trainer.model.train(False)
    trainer.model.save_pretrained(folder)
    trainer.tokenizer.save_pretrained(folder)
