"""A training run of any kind that can stop at any step and go on as if nothing had happened. Knows no model."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sfvqa.training.optimizers import make_optimizers, set_learning_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

logger = logging.getLogger(__name__)

LOG_EVERY = 50


class Course:
    """Modules on their way through `num_steps` steps; their state is kept in `path`.

    Every step must be a function of its number alone: a course that was resumed then equals one that was not.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        path: Path,
        *,
        num_steps: int,
        rate: float,
        save_every: int,
        outside: set[int],
        largest_gradient: float = 1.0,
    ) -> None:
        self.losses: list[float] = []
        self.seconds = 0.0
        self._modules = dict(modules)
        self._path = path
        self._num_steps, self._rate, self._save_every = num_steps, rate, save_every
        self._largest_gradient = largest_gradient
        parameters = [part for module in self._modules.values() for part in module.parameters() if part.requires_grad]
        self._parameters = list({id(part): part for part in parameters}.values())
        self._optimizers = make_optimizers(self._parameters, outside)
        if path.exists():
            self._load()

    @property
    def step(self) -> int:
        """Steps that are done."""
        return len(self.losses)

    def run(self, take_step: Callable[[int], tuple[float, str]]) -> None:
        """Go through what is left; `take_step` adds the gradients of a step and gives its loss and what to log."""
        while self.step < self._num_steps:
            began = time.monotonic()
            set_learning_rate(self._optimizers, self._rate, self.step, self.step / self._num_steps)
            for optimizer in self._optimizers:
                optimizer.zero_grad()
            loss, text = take_step(self.step)
            nn.utils.clip_grad_norm_(self._parameters, self._largest_gradient)
            for optimizer in self._optimizers:
                optimizer.step()
            self.losses.append(loss)
            self.seconds += time.monotonic() - began
            if self.step % LOG_EVERY == 0 or self.step == self._num_steps:
                recent = self.losses[-LOG_EVERY:]
                mean = sum(recent) / len(recent)
                logger.info("%d/%d %.1f min: loss %.3f %s", self.step, self._num_steps, self.seconds / 60, mean, text)
            if self.step % self._save_every == 0 or self.step == self._num_steps:
                self._save()

    def _save(self) -> None:
        state = {
            "modules": {name: module.state_dict() for name, module in self._modules.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "losses": self.losses,
            "seconds": self.seconds,
        }
        save_whole(state, self._path)

    def _load(self) -> None:
        state = torch.load(self._path, map_location="cpu", weights_only=True)
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.losses, self.seconds = list(state["losses"]), float(state["seconds"])


def save_whole(value: Any, path: Path) -> None:
    """Write text as it is and anything else as torch does, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    if isinstance(value, str):
        unfinished.write_text(value, encoding="utf-8")
    else:
        torch.save(value, unfinished)
    unfinished.replace(path)
