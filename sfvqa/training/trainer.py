"""transformers' Trainer, with eyes that see a video once where they are frozen, and validation by answers."""

from collections.abc import Mapping
from contextlib import nullcontext
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer

from sfvqa.training.frozen_tower import FrozenTower
from sfvqa.training.rates import Part, set_rates
from sfvqa.training.validation import Figures, Validation


class VideoTrainer(Trainer):
    """Trains on rows of a VideoDataset; what `frozen` keeps is not looked at again, and `validation` evaluates."""

    frozen: FrozenTower | None = None
    validation: Validation | None = None
    order: Sampler[int] | None = None
    """In which rows are learned from; None: at random."""

    rates: Mapping[Part, float] = MappingProxyType({})

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """As Trainer's; parts of the network that have a learning rate in `rates` learn at that."""
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if is_new and self.rates:
            learner: Any = model or self.model
            set_rates(optimizer, learner, self.rates)
        return optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return super()._get_train_sampler(train_dataset) if self.order is None else self.order

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """As Trainer's; videos of which something is kept go in as that."""
        looked = inputs.pop("looked", None)
        if self.frozen is not None and looked is not None:
            del inputs["pixel_values"]
            with self.accelerator.autocast():
                inputs |= self.frozen.arguments(self.accelerator.unwrap_model(model), looked)
        return super().compute_loss(model, inputs, *arguments, **named)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the model as it is now; the rest of it, from logs to early stopping, is Trainer's."""
        metrics = {f"eval_{name}": value for name, value in self.measure().metrics.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measure(self, validation: Validation | None = None) -> Figures:
        """The figures of the model as it is now, or of another one's `validation`, over all processes."""
        other, accelerator = validation is not None, self.accelerator
        validation = validation or self.validation
        assert validation is not None
        return validation.measure(
            nullcontext if other else accelerator.autocast,
            process=(accelerator.process_index, accelerator.num_processes),
            add_up=self._add_up,
        )

    def _add_up(self, sums: Tensor) -> Tensor:
        """The sums of all processes; a device of one alone need not know float64."""
        if self.accelerator.num_processes == 1:
            return sums
        total: Tensor = self.accelerator.reduce(sums.to(self.accelerator.device))
        return total
