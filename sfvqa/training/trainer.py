"""transformers' Trainer, with eyes that see a video once where they are frozen."""

from typing import Any

from torch.utils.data import Sampler
from transformers import Trainer

from sfvqa.training.frozen_tower import FrozenTower


class VideoTrainer(Trainer):
    """Trains on rows of a VideoDataset."""

    frozen: FrozenTower | None = None
    order: Sampler[int] | None = None
    """In which rows are learned from; None: in random order."""

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
