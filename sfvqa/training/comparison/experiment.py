"""An experiment in its folder: what all cells share, then cell by cell; every part is made once and kept."""

from __future__ import annotations

import json
import logging
import platform
import time
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from sfvqa.errors import UsageError
from sfvqa.training.benchmark.items import TESTING, TRAINING, chances, digest, draw_item
from sfvqa.training.benchmark.scenes import Timeline
from sfvqa.training.comparison.cells import BASE, Settings, plan
from sfvqa.training.comparison.course import Course, save_whole
from sfvqa.training.comparison.lessons import FEW_FRAMES, Lessons, Shown
from sfvqa.training.comparison.network import build, prompt_flops
from sfvqa.training.comparison.seeing import SightHeads, seeing_batch
from sfvqa.training.comparison.videos import EncodedVideos
from sfvqa.training.conversations import RowBuilder
from sfvqa.training.motion_heads import MotionHeads
from sfvqa.training.tokenizer import learn_tokenizer, with_template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from sfvqa.model import SlowFastForConditionalGeneration
    from sfvqa.training.comparison.cells import Cell

logger = logging.getLogger(__name__)

CORPUS_VIDEOS = 400
SETTINGS_FILE = "settings.json"


class Experiment:
    """Settings in a folder, which is written to once something is run.

    Raises UsageError when the folder holds an experiment with other settings, or there is no such device.
    """

    def __init__(self, settings: Settings, folder: Path, device: str = "cpu") -> None:
        self.settings = settings
        self.folder = folder
        self.device = _device(device)
        if (folder / SETTINGS_FILE).exists() and read_settings(folder) != settings:
            raise UsageError(
                f"{folder} holds an experiment with other settings.",
                "Give the options it was begun with, or another folder.",
            )

    @property
    def cells(self) -> list[Cell]:
        """All that there is to train."""
        return plan(self.settings)

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train and score a cell, or read its result when that is done; go on where it was stopped."""
        path = result_path(self.folder, cell)
        save_whole(json.dumps(asdict(self.settings), indent=1) + "\n", self.folder / SETTINGS_FILE)
        if not path.exists():
            save_whole(json.dumps(self._train(cell), indent=1) + "\n", path)
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return result

    # --- what cells share ------------------------------------------------------------------------------------------

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Learned from questions that cells are trained on, and kept: what is trained knows words by its numbers."""
        path = self.folder / "tokenizer.json"
        if not path.exists():
            learned = learn_tokenizer(_corpus(self.settings), self.settings.vocab_size)
            save_whole(learned.backend_tokenizer.to_str(pretty=True), path)
        return with_template(Tokenizer.from_file(str(path)))

    @cached_property
    def tower(self) -> dict[str, torch.Tensor]:
        """The trained vision tower and projector, as part of a model's state."""
        path = self.folder / "tower.pt"
        if not path.exists():
            self._train_tower(path)
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    @cached_property
    def training(self) -> EncodedVideos:
        """What cells are trained on."""
        return self._videos(TRAINING, self.settings.num_training_videos)

    @cached_property
    def testing(self) -> EncodedVideos:
        """What they are scored with."""
        return self._videos(TESTING, self.settings.num_test_videos)

    def _videos(self, part: int, count: int) -> EncodedVideos:
        videos = EncodedVideos(self.folder / "videos", part, count, self.settings)
        videos.encode(self._seeing_model())
        return videos

    def _seeing_model(self) -> SlowFastForConditionalGeneration:
        model = build(self.settings, BASE, self.tokenizer, seed=0, learned=self.tower)
        _to(model, self.device).train(False)
        return model

    def _train_tower(self, path: Path) -> None:
        settings = self.settings
        model = _to(build(settings, BASE, self.tokenizer, seed=0), self.device)
        grid = _grid(model)
        heads = SightHeads(model.config.vision.dims[-1], settings.width, grid).to(self.device)
        modules = {"tower": model.vision_tower, "projector": model.projector, "heads": heads}
        course = Course(
            modules,
            self.folder / "tower-state.pt",
            num_steps=settings.see_steps,
            rate=settings.see_rate,
            save_every=settings.save_every,
            outside={id(parameter) for parameter in heads.parameters()},
            largest_gradient=50.0,
        )

        def take_step(step: int) -> tuple[float, str]:
            pixels, aims = seeing_batch(step, settings.see_scenes, settings.image_size, grid, settings.timeline)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                features = model.vision_tower(pixels.to(self.device))
                tokens = model.pool(model.projector(features).float())
            loss, right = heads.loss(features.float().flatten(1, 2), tokens.flatten(1, 2), aims.to(self.device))
            loss.backward()
            return loss.item(), " ".join(f"{name} {share:.0%}" for name, share in right.items())

        logger.info("seeing")
        course.run(take_step)
        seen = {name: value for name, value in model.state_dict().items() if _sees(name)}
        save_whole(seen, path)

    @cached_property
    def base(self) -> dict[str, torch.Tensor]:
        """The state of the plain model that every cell starts from, tower and projector included."""
        path = self.folder / "base.pt"
        if not path.exists():
            self._train_base(path)
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def _train_base(self, path: Path) -> None:
        settings = self.settings
        model = build(settings, BASE, self.tokenizer, seed=0, learned=self.tower)
        heads = MotionHeads(settings.width, BASE.num_frames, _grid(model)).to(self.device)
        rows = RowBuilder(self.tokenizer)
        stills = Lessons(model, rows, settings, 1, seed=0, shown=Shown.ONE)
        few = Lessons(model, rows, settings, FEW_FRAMES, seed=0, shown=Shown.FEW)
        telling = Lessons(model, rows, settings, BASE.num_frames, seed=0, shown=Shown.TELLING, motion_heads=heads)
        course = self._answering(model, self.folder / "base-state.pt", settings.base_steps, heads)
        training = self.training
        logger.info("base")

        def take_step(step: int) -> tuple[float, str]:
            is_early = step < settings.still_steps + settings.few_steps
            lessons = stills if step < settings.still_steps else few if is_early else telling
            return lessons.accumulate(step, training), ""

        course.run(take_step)
        model.train(False)
        outcomes = telling.score(self.testing)
        shares = (f"{family} {right.count('1') / len(right):.0%}" for family, right in outcomes.items())
        logger.info("base, from frames that tell: %s", " ".join(shares))
        save_whole(model.state_dict(), path)

    def _answering(
        self,
        model: SlowFastForConditionalGeneration,
        path: Path,
        num_steps: int,
        heads: MotionHeads | None = None,
    ) -> Course:
        """The course of a decoder; what sees stays as it is."""
        _to(model, self.device).train()
        for part in (model.vision_tower, model.projector):
            part.requires_grad_(False)
        teachers = {} if heads is None else {"heads": heads}
        read_outs = [*model.get_input_embeddings().parameters(), *(heads.parameters() if heads else ())]
        return Course(
            {"model": model, **teachers},
            path,
            num_steps=num_steps,
            rate=self.settings.learning_rate,
            save_every=self.settings.save_every,
            outside={id(parameter) for parameter in read_outs},
        )

    # --- a cell ----------------------------------------------------------------------------------------------------

    def _train(self, cell: Cell) -> dict[str, Any]:
        settings, variant = self.settings, cell.variant
        model = build(settings, variant, self.tokenizer, cell.seed, learned=self.base)
        lessons = Lessons(model, RowBuilder(self.tokenizer), settings, variant.num_frames, cell.seed)
        course = self._answering(model, self.folder / "cells" / f"{cell.name}.pt", cell.num_steps)
        logger.info("%s", cell.name)
        training, testing = self.training, self.testing
        course.run(lambda step: (lessons.accumulate(step, training), ""))
        model.train(False)
        began = time.monotonic()
        outcomes = lessons.score(testing)
        scoring = time.monotonic() - began
        num_text = lessons.mean_text(testing)
        chance = chances(testing.items)
        families = {
            family.value: {
                "skill": family.skill.value,
                "right": outcomes[family].count("1"),
                "total": len(outcomes[family]),
                "chance": round(of.level, 4),
                "outcomes": outcomes[family],
            }
            for family, of in chance.items()
        }
        return {
            "cell": cell.name,
            "group": cell.group,
            "variant": asdict(variant),
            "seed": cell.seed,
            "num_steps": cell.num_steps,
            "settings": asdict(settings),
            "test_set": digest(testing.items),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "num_text_tokens": num_text,
            "prefill_flops": prompt_flops(model.config, variant.num_frames, num_text),
            "training_seconds": round(course.seconds, 1),
            "scoring_seconds": round(scoring, 1),
            "machine": _machine(self.device),
            "losses": _thinned(course.losses),
            "families": families,
        }


def result_path(folder: Path, cell: Cell) -> Path:
    """Where a cell's result is, once it has one."""
    return folder / "results" / f"{cell.name}.json"


def read_settings(folder: Path) -> Settings:
    """The settings of the experiment in a folder; UsageError where there is none that this code can read."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise UsageError(f"There is no experiment in {folder}.", "Begin one: python -m sfvqa.training.experiment.")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        timeline = Timeline(**fields.pop("timeline"))
        return Settings(**fields | {"timeline": timeline, "vision_dims": tuple(fields["vision_dims"])})
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(
            f"The settings in {path} are damaged or of another version: {error}.", "Begin an experiment elsewhere."
        ) from error


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"There is no device {name!r}: {reason}", "Use cpu, or cuda where it is.") from error


def _corpus(settings: Settings) -> Iterator[str]:
    for number in range(CORPUS_VIDEOS):
        yield "system\nYou are a helpful assistant.\nuser\nassistant\n"
        for question in draw_item(TRAINING, 0, number, settings.timeline).questions:
            yield question.text
            yield question.answer


def _grid(model: SlowFastForConditionalGeneration) -> int:
    """Visual tokens of one of several frames in each direction."""
    return model.config.grid_side(num_frames=2)


def _sees(name: str) -> bool:
    return name.startswith(("vision_tower.", "projector."))


def _to(model: SlowFastForConditionalGeneration, device: torch.device) -> SlowFastForConditionalGeneration:
    nn.Module.to(model, device)  # transformers wraps `to` and loses its types
    return model


def _thinned(losses: list[float], points: int = 100) -> list[float]:
    """Means of up to `points` stretches of the curve."""
    return [round(float(part.mean()), 4) for part in np.array_split(np.array(losses), min(points, len(losses)))]


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
