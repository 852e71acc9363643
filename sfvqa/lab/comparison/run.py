"""An experiment in its folder: what all cells share, then cell by cell; every part is made once and kept."""

from __future__ import annotations

import json
import logging
import platform
import time
from dataclasses import asdict, replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn

from sfvqa.errors import UsageError
from sfvqa.lab.commands import command_parser, errors_without_traceback
from sfvqa.lab.comparison.cells import BASE, Settings, build, plan, prompt_flops
from sfvqa.lab.comparison.items import TESTING, TRAINING, chances, digest, draw_item
from sfvqa.lab.comparison.lessons import FEW_FRAMES, Lessons, Shown
from sfvqa.lab.comparison.scenes import Timeline
from sfvqa.lab.comparison.seeing import SightHeads, seeing_batch
from sfvqa.lab.comparison.videos import EncodedVideos
from sfvqa.lab.motion_heads import MotionHeads
from sfvqa.lab.network import learn_tokenizer, with_template
from sfvqa.lab.rows import RowBuilder
from sfvqa.lab.seeing import see
from sfvqa.lab.training_loop import TrainingLoop, save_whole

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerFast

    from sfvqa.lab.comparison.cells import Cell
    from sfvqa.model import SlowFastForConditionalGeneration


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
        loop = TrainingLoop(
            modules,
            self.folder / "tower-state.pt",
            num_steps=settings.see_steps,
            rate=settings.see_rate,
            save_every=settings.save_every,
            outside=heads.parameters(),
            largest_gradient=50.0,
        )

        def take_step(step: int) -> dict[str, float]:
            pixels, aims = seeing_batch(step, settings.see_scenes, settings.image_size, grid, settings.timeline)
            features, _, tokens = see(model, pixels)
            loss, right = heads.loss(features, tokens, aims.to(self.device))
            loss.backward()
            return {"loss": loss.item(), **right}

        logger.info("seeing")
        loop.run(take_step)
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
        loop = self._answering(model, self.folder / "base-state.pt", settings.base_steps, heads)
        training = self.training
        logger.info("base")

        def take_step(step: int) -> dict[str, float]:
            is_early = step < settings.still_steps + settings.few_steps
            lessons = stills if step < settings.still_steps else few if is_early else telling
            return {"loss": lessons.accumulate(step, training)}

        loop.run(take_step)
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
        seed: int = 0,
    ) -> TrainingLoop:
        """The loop of a decoder; what sees stays as it is."""
        _to(model, self.device).train()
        for part in (model.vision_tower, model.projector):
            part.requires_grad_(False)
        teachers = {} if heads is None else {"heads": heads}
        read_outs = [*model.get_input_embeddings().parameters(), *(heads.parameters() if heads else ())]
        return TrainingLoop(
            {"model": model, **teachers},
            path,
            num_steps=num_steps,
            rate=self.settings.learning_rate,
            save_every=self.settings.save_every,
            outside=read_outs,
            seed=seed,
        )

    # --- a cell ----------------------------------------------------------------------------------------------------

    def _train(self, cell: Cell) -> dict[str, Any]:
        settings, variant = self.settings, cell.variant
        model = build(settings, variant, self.tokenizer, cell.seed, learned=self.base)
        lessons = Lessons(model, RowBuilder(self.tokenizer), settings, variant.num_frames, cell.seed)
        loop = self._answering(model, self.folder / "cells" / f"{cell.name}.pt", cell.num_steps, seed=cell.seed)
        logger.info("%s", cell.name)
        training, testing = self.training, self.testing
        loop.run(lambda step: {"loss": lessons.accumulate(step, training)})
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
            "training_seconds": round(loop.seconds, 1),
            "scoring_seconds": round(scoring, 1),
            "machine": _machine(self.device),
            "losses": _thinned(loop.losses),
            "families": families,
        }


def result_path(folder: Path, cell: Cell) -> Path:
    """Where a cell's result is, once it has one."""
    return folder / "results" / f"{cell.name}.json"


def read_settings(folder: Path) -> Settings:
    """The settings of the experiment in a folder; UsageError where there is none that this code can read."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise UsageError(f"There is no experiment in {folder}.", "Begin one: python -m sfvqa.lab.comparison.run.")
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
    parser = command_parser("comparison.run", __doc__)
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


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for."""
    options = parse_arguments(arguments)
    changed = {name: getattr(options, name) for name in CHANGEABLE if getattr(options, name) is not None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if options.threads is not None:
        if options.threads < 1:
            raise UsageError(f"threads is {options.threads}.", "It must be at least 1.")
        torch.set_num_threads(options.threads)
    experiment = Experiment(replace(Settings().scaled(options.scale), **changed), options.run, options.device)
    _run_or_list(experiment, options.only, only_list=options.list)


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
