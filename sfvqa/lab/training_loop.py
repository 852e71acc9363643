"""A training loop that can stop after any step and resume as if nothing had happened. Knows no model and no data."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path


logger = logging.getLogger(__name__)

LOG_EVERY = 50
RISING_STEPS = 50
LAST_SHARE = 0.02  # of the learning rate, at the end


class TrainingLoop:
    """Takes `modules` through `num_steps` steps; what they and the optimizers hold is kept in `path`.

    Every step must be a function of its number alone: a resumed loop then equals one that never stopped.
    `outside` are matrices that Muon is not for: embeddings and read-outs. Raises UsageError for a state of another
    seed.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        path: Path,
        *,
        num_steps: int,
        rate: float,
        outside: Iterable[nn.Parameter],
        seed: int = 0,
        save_every: int = 50,
        largest_gradient: float = 1.0,
    ) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0
        self.num_steps = num_steps
        self._modules, self._path, self._seed = dict(modules), path, seed
        self._rate, self._save_every, self._largest_gradient = rate, save_every, largest_gradient
        parameters = [part for module in self._modules.values() for part in module.parameters() if part.requires_grad]
        self._parameters = list({id(part): part for part in parameters}.values())
        self._optimizers = make_optimizers(self._parameters, {id(part) for part in outside})
        if path.exists():
            self._load()

    @property
    def step(self) -> int:
        """Steps that are done."""
        return len(self.losses)

    def run(
        self, take_step: Callable[[int], dict[str, float]], after_step: Callable[[int], None] | None = None
    ) -> None:
        """Take the steps that are left.

        `take_step` adds the gradients of a step and returns figures to log, the "loss" among them; `after_step` is told
        how many steps are done.
        """
        means: dict[str, float] = {}
        while self.step < self.num_steps:
            began = time.monotonic()
            self._set_learning_rate()
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            figures = take_step(self.step)
            nn.utils.clip_grad_norm_(self._parameters, self._largest_gradient)
            for optimizer in self._optimizers:
                optimizer.step()
            self.losses.append(figures["loss"])
            self.seconds += time.monotonic() - began
            is_last = self.step == self.num_steps
            means = {name: 0.95 * means.get(name, value) + 0.05 * value for name, value in figures.items()}
            if self.step % LOG_EVERY == 0 or is_last:
                told = " ".join(f"{name} {value:.3f}" for name, value in means.items())
                logger.info("%d/%d %.1f min: %s", self.step, self.num_steps, self.seconds / 60, told)
            if after_step is not None:
                after_step(self.step)
            if self.step % self._save_every == 0 or is_last:
                self._save()

    def _set_learning_rate(self) -> None:
        """A short rise, then a cosine to LAST_SHARE of the rate."""
        rise = min(1.0, (self.step + 1) / RISING_STEPS)
        progress = self.step / self.num_steps
        share = rise * (LAST_SHARE + (1 - LAST_SHARE) / 2 * (1 + float(np.cos(np.pi * progress))))
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._rate * share

    def _save(self) -> None:
        state = {
            "seed": self._seed,
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "losses": self.losses,
            "seconds": self.seconds,
        }
        save_whole(state, self._path)

    def _load(self) -> None:
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        if state["seed"] != self._seed:
            raise UsageError(f"{self._path} is of seed {state['seed']}, not {self._seed}.", "Use another folder.")
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.losses, self.seconds = list(state["losses"]), float(state["seconds"])


def make_optimizers(parameters: Iterable[nn.Parameter], outside: set[int]) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the network, AdamW for embeddings, convolutions, heads, gates and biases.

    `outside` holds the `id` of matrices that are not inside.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in parameters:
        is_matrix = parameter.ndim == 2 and min(parameter.shape) > 1 and id(parameter) not in outside
        (matrices if is_matrix else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.0, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def save_whole(value: Any, path: Path) -> None:
    """Write text as it is and anything else as torch does, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    if isinstance(value, str):
        unfinished.write_text(value, encoding="utf-8")
    else:
        torch.save(value, unfinished)
    unfinished.replace(path)
