"""Where a converted model's vision tower comes from: a checkpoint, a folder of a tower alone, or chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sfvqa.errors import CheckpointError
from sfvqa.inference.locate import locate
from sfvqa.model import SlowFastForConditionalGeneration, SlowFastVisionConfig
from sfvqa.model.projector import Projector
from sfvqa.model.stored import StoredModel
from sfvqa.model.tensor_files import TensorFiles, read_json
from sfvqa.model.vision_tower import ConvNextBlock, VisionTower

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

TOWER_MODEL_TYPE = SlowFastVisionConfig.model_type
_HEAD = "head."  # of a tower that classified; nothing computes with it
_SHALLOW = 12  # blocks; ConvNeXt's layer scale of 1e-6 is for deeper towers: in a shallow one little would be learned
_SHALLOW_GAMMA = 0.3


@dataclass(frozen=True, eq=False)
class VisionSource:
    """A vision tower's sizes and its tensors by the tower's own names; `folder` None for random ones."""

    config: SlowFastVisionConfig
    folder: Path | None = None
    seed: int = 0

    @classmethod
    def of(cls, model: str | Path) -> VisionSource:
        """That of a registered model, of a slow-fast checkpoint folder, or of a folder with a tower alone.

        The latter has a config.json of model type `slow_fast_vision` and timm's names of a ConvNeXt in its safetensors.
        Raises ModelError.
        """
        folder = locate(model).folder
        fields = read_json(folder / "config.json")
        if fields.get("model_type") == TOWER_MODEL_TYPE:
            config = SlowFastVisionConfig.from_dict(fields)
        else:
            config = StoredModel.of(folder, SlowFastForConditionalGeneration).config.vision
        return cls(config, folder)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """By name, without prefix; CheckpointError when a tower's folder holds others than its config describes."""
        if self.folder is None:
            yield from self._random_tower().state_dict().items()
        elif read_json(self.folder / "config.json").get("model_type") == TOWER_MODEL_TYPE:
            yield from self._of_tower_alone(self.folder)
        else:
            prefix = "vision_tower."
            for name, parts in StoredModel.of(self.folder, SlowFastForConditionalGeneration).tensors():
                if name.startswith(prefix):
                    yield name.removeprefix(prefix), parts["weight"]

    def _of_tower_alone(self, folder: Path) -> Iterator[tuple[str, Tensor]]:
        with torch.device("meta"):
            wanted = {name: list(tensor.shape) for name, tensor in VisionTower(self.config).state_dict().items()}
        files = TensorFiles.of(folder)
        found = {name: shape for name, shape in files.shapes().items() if not name.startswith(_HEAD)}
        if wrong := sorted(name for name in wanted | found if wanted.get(name) != found.get(name)):
            raise CheckpointError(
                f"{folder} holds another vision tower than its config.json describes: {wrong[0]} is "
                f"{found.get(wrong[0], 'missing')}, not {wanted.get(wrong[0], 'expected')}.",
                "Check depths and dims in its config.json.",
            )
        for shard in files.shards():
            yield from ((name, shard.read(name)) for name in shard.names if name in wanted)

    def _random_tower(self) -> VisionTower:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            tower = VisionTower(self.config)
        if sum(self.config.depths) < _SHALLOW:
            for module in tower.modules():
                if isinstance(module, ConvNextBlock):
                    torch.nn.init.constant_(module.gamma, _SHALLOW_GAMMA)
        return tower


def new_projector(vision_width: int, decoder_width: int, seed: int) -> dict[str, Tensor]:
    """The tensors of a projector that has learned nothing yet."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + 1)
        return Projector(vision_width, decoder_width).state_dict()
