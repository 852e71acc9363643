"""transformers' Trainer, with eyes that see a video once where they are frozen."""

from typing import Any

from transformers import Trainer

from sfvqa.training.frozen_tower import FrozenTower


class VideoTrainer(Trainer):
    """Trains on rows of a VideoDataset."""

    frozen: FrozenTower | None = None

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        """As Trainer's; videos of which something is kept go in as that."""
        looked = inputs.pop("looked", None)
        if self.frozen is not None and looked is not None:
            del inputs["pixel_values"]
            with self.accelerator.autocast():
                inputs |= self.frozen.arguments(self.accelerator.unwrap_model(model), looked)
        return super().compute_loss(model, inputs, *arguments, **named)
