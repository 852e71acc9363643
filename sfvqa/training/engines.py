"""How the processes of a run share a model, by the engine that `accelerate launch` names, and what each cannot do.

DDP: each process holds all of it. FSDP and ZeRO-3: each holds a share, and weights are gathered where they are used.
"""

import os
from enum import StrEnum
from typing import Any

from accelerate.utils import DistributedType

from sfvqa.errors import UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization
from sfvqa.training.options import FineTuning


class Engine(StrEnum):
    """What a run is launched with; a process alone is as with DDP."""

    DDP = "ddp"
    FSDP = "fsdp"
    ZERO3 = "zero3"

    @classmethod
    def launched(cls) -> "Engine":
        """The engine that this process was launched with."""
        for engine, variable in ((cls.FSDP, "ACCELERATE_USE_FSDP"), (cls.ZERO3, "ACCELERATE_USE_DEEPSPEED")):
            if os.environ.get(variable, "false").lower() == "true":
                return engine
        return cls.DDP


def kept_whole(model: SlowFastForConditionalGeneration) -> list[str]:
    """The parts that every process holds all of: those frozen ones that one may run when another does not.

    Videos that are kept on disk, and of another length, would else have processes wait for each other for ever.
    """
    parts = ("vision_tower", "projector")
    return [name for name in parts if not any(each.requires_grad for each in model.get_submodule(name).parameters())]


def prepare_sharing(accelerator: Any, model: SlowFastForConditionalGeneration) -> None:
    """Tell accelerate, before it divides the model, where."""
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin = accelerator.state.fsdp_plugin
        plugin.transformer_cls_names_to_wrap = [type(model.language_model.layers[0]).__name__]
        if whole := kept_whole(model):
            plugin.ignored_modules = rf"(.*\.)?({'|'.join(whole)})"
