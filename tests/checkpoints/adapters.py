"""Adapters of `tiny` with random numbers, in PEFT's form."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sfvqa.checkpoints.find import locate
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.loading import StoredModel

DECODER = "language_model.layers.0.mlp.up_proj"
TOWER = "vision_tower.stages.0.blocks.0.mlp.fc1"
GATE = "language_model.layers.0.self_attn.slow_attention.warm_up_gate"


def save_adapter(folder: Path, *layers: str, scale: float = 0.5, trained: Any = None, **fields: Any) -> Path:
    """An adapter of rank 2 of linear layers, and of the first warm-up gate in full."""
    network = StoredModel.of(locate("tiny").folder, SlowFastForConditionalGeneration).network
    generator = torch.Generator().manual_seed(0)
    tensors = {f"base_model.model.{GATE}": torch.full((1,), 0.25)}
    for layer in layers:
        rows, columns = network.get_parameter(f"{layer}.weight").shape
        for name, shape in (("lora_A", (2, columns)), ("lora_B", (rows, 2))):
            tensors[f"base_model.model.{layer}.{name}.weight"] = scale * torch.randn(shape, generator=generator)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "base_model_name_or_path": "tiny", "r": 2, "lora_alpha": 3, **fields}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    if trained is not None:
        (folder / "training.json").write_text(json.dumps(trained))
    return folder
