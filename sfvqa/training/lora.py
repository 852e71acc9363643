"""LoRA and QLoRA by PEFT: the slow path learns in full, and beside the decoder's weights learn products of small ones.

What is saved is an adapter in PEFT's form, for `--adapter` or `python -m sfvqa.training.merge`.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sfvqa.checkpoints.adapter import ADAPTER_CONFIG, TRAINING_FILE
from sfvqa.checkpoints.find import identify_checkpoint
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import UsageError
from sfvqa.model.quantization import Quantization, quantizable_linears
from sfvqa.training.options import FineTuning
from sfvqa.training.rates import new_parts


def add_lora(model: Any, folder: Path, options: FineTuning) -> Any:
    """Give the model in a checkpoint folder products to learn; return it as PEFT's PeftModel.

    It has gradients for what learns and nothing else. UsageError if PEFT is not installed.
    """
    rank = options.lora_rank
    assert rank is not None
    try:
        import peft
    except ImportError:
        raise UsageError("LoRA needs peft, which is not installed.", "Install it with `pip install peft`.") from None
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if options.lora_alpha is None else options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=_pattern(model, on_tower=options.lora_tower),
        modules_to_save=list(new_parts(model.config).values()) or None,
    )
    torch.manual_seed(options.seed)
    model.is_loaded_in_4bit = options.quantization == Quantization.FOUR_BIT  # by which PEFT knows such layers
    try:
        adapted = peft.get_peft_model(model, config)
    finally:
        del model.is_loaded_in_4bit
    # A folder, in which PEFT looks for the size of the vocabulary when it saves; otherwise it would ask the hub.
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    return adapted


def _pattern(model: nn.Module, *, on_tower: bool) -> str:
    """What matches the names of the layers that get a product: the decoder's but slow attention's, and the tower's."""
    names = set(quantizable_linears(model))
    if on_tower:
        names |= {
            name
            for name, module in model.named_modules()
            if name.startswith("vision_tower.") and isinstance(module, nn.Linear)
        }
    return "|".join(sorted({re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for name in names}))


def compute_quantized_in(model: nn.Module, precision: torch.dtype) -> None:
    """Compute with 4-bit weights in a precision, as autocast does with the others."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit" and isinstance(module, nn.Linear):
            quantized: Any = module
            quantized.compute_dtype = quantized.weight.quant_state.dtype = precision


def complete_adapter(folder: Path, checkpoint: LoadedCheckpoint, model: str | Path) -> None:
    """Write into the folder of an adapter what PEFT does not know of its training."""
    path = folder / ADAPTER_CONFIG
    fields = json.loads(path.read_text(encoding="utf-8"))
    is_folder = checkpoint.location.spec is None
    fields["base_model_name_or_path"] = str(Path(model).absolute()) if is_folder else str(model)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    config = checkpoint.model.config
    trained = {
        "training_num_frames": config.training_num_frames,
        "training_sampling": config.training_sampling,
        "training_crop": config.training_crop,
        "base_identity": identify_checkpoint(checkpoint.location, random_weights=False),
        "base_quantization": checkpoint.quantization,
    }
    (folder / TRAINING_FILE).write_text(json.dumps(trained, indent=2) + "\n", encoding="utf-8")
