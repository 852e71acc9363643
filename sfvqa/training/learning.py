"""What of a model learns, and in which precision the rest is kept meanwhile."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sfvqa.errors import UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.loading import StoredModel
from sfvqa.training.lora import add_lora, compute_quantized_in
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rates import Part, new_parts


def prepare(model: SlowFastForConditionalGeneration, folder: Path, options: FineTuning) -> Any:
    """Choose what learns of the model in a checkpoint folder, and keep the rest in its precision; return what to train.

    That is the model, or PEFT's around it.
    """
    learner: Any = model
    if options.lora_rank is None:
        choose_learned(model, options.stage, freeze_vision=options.freeze_vision)
    else:
        learner = add_lora(model, folder, options)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(
            "The model has no slow path, and stage 1 trains nothing else.",
            "Add one with `python -m sfvqa.training.convert`, or use --stage 2.",
        )
    learned = {Part.of(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
    if useless := [part for part in options.rates if part not in learned]:
        raise UsageError(f"{useless[0]}_learning_rate has no effect: nothing of that part learns.", "Leave it out.")
    if options.precision != "float32":
        keep_frozen_in(model, getattr(torch, options.precision))
        compute_quantized_in(model, getattr(torch, options.precision))
    return learner


def choose_learned(model: SlowFastForConditionalGeneration, stage: Stage, *, freeze_vision: bool = False) -> int:
    """Enable gradients for what a stage learns and nothing else; return its number of parameters."""
    new = new_parts(model.config)
    for name, parameter in model.named_parameters():
        part = Part.of(name)
        is_frozen = freeze_vision and part is Part.TOWER
        parameter.requires_grad = part in new or (stage is Stage.ALL and not is_frozen)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def keep_frozen_in(model: SlowFastForConditionalGeneration, precision: torch.dtype) -> None:
    """Keep frozen weights as autocast would make them at each use, which saves memory and time.

    No loss changes for a checkpoint that is stored in that precision. They are the weights of products, and embeddings,
    which are looked up and then made float32, as they were.
    """
    for module in model.modules():
        is_frozen = not any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        if is_frozen and isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            module.to(precision)
            if isinstance(module, nn.Embedding):
                module.register_forward_hook(lambda _module, _ids, found: found.float())


def restore_frozen(
    model: SlowFastForConditionalGeneration, folder: Path, whole: dict[str, Tensor] | None = None
) -> None:
    """Give frozen weights the values of the checkpoint in `folder` back, of which `keep_frozen_in` may have rounded.

    With `whole`, the weights of a model that processes share, they are put there.
    """
    named = model.named_parameters(remove_duplicate=False)  # of tied ones either may be stored
    frozen = {name: parameter for name, parameter in named if not parameter.requires_grad}
    for name, parts in StoredModel.of(folder, type(model)).tensors():
        if name in frozen and (whole is None or name in whole):
            restored = parts["weight"].to(torch.float32, copy=True)
            if whole is None:
                frozen[name].data = restored
            else:
                whole[name] = restored
