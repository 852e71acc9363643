"""How the processes of a run share a model, by the engine that `accelerate launch` names, and what each cannot do.

DDP: each process holds all of it. FSDP and ZeRO-3: each holds a share, and weights are gathered where they are used.
"""

import importlib.util
import os
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from torch import nn
from transformers import TrainerCallback

from sfvqa.errors import UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization
from sfvqa.training.annotations import Example
from sfvqa.training.options import FineTuning, Stage


class Engine(StrEnum):
    """What a run is launched with, by the name of its recipe; a process alone holds its model as with DDP."""

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


def check_engine(engine: Engine, options: FineTuning, examples: Iterable[Example]) -> None:
    """Raise UsageError for what a run cannot do with an engine."""
    if engine is Engine.DDP:
        return
    instead, by_recipe = "Use the recipe ddp", f"with the recipe {engine}"
    if engine is Engine.ZERO3 and importlib.util.find_spec("deepspeed") is None:
        raise UsageError(
            "The recipe zero3 needs deepspeed, which is not installed.", "Install it with `pip install deepspeed`."
        )
    variable, wanted = _FORMS[engine]
    if os.environ.get(variable, wanted) != wanted:  # as in a recipe that was changed
        raise UsageError(
            f"{variable} is {os.environ[variable]}, and a run shares its model with {wanted} alone.",
            f"Change a copy of the recipe {engine} otherwise.",
        )
    if options.validation:
        raise UsageError(
            f"Validation answers questions with the whole model, of which a process has a share {by_recipe}.",
            f"{instead}, or leave out --validation and ask the result.",
        )
    if engine is Engine.ZERO3 and options.quantization != Quantization.NONE:
        raise UsageError(f"Weights in 4 bits cannot be divided {by_recipe}.", f"{instead}, or no --quantization.")
    if options.optimizer not in _SHARED_OPTIMIZERS:
        raise UsageError(
            f"The optimizer {options.optimizer} cannot be used {by_recipe}.", f"{instead}, or adamw_torch_fused."
        )
    if options.precision == "float16":
        raise UsageError(f"float16 cannot be used {by_recipe}.", "Use bfloat16.")
    if options.stage is Stage.ALL and any(example.video is None for example in examples):
        raise UsageError(
            f"Some rows have no video, and {by_recipe} a process without one would leave the others waiting.",
            f"{instead}, or learn from rows with videos and images alone.",
        )


_FORMS = {Engine.FSDP: ("FSDP_VERSION", "2"), Engine.ZERO3: ("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")}
"""The variable by which `accelerate launch` says the form of an engine, and the form that a run takes."""

_SHARED_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""They take each number by itself, and so a share of a weight like a whole one."""


def parts_kept_whole(engine: Engine, model: SlowFastForConditionalGeneration) -> list[str]:
    """The parts that every process holds all of, and may run when, or as often as, others do not.

    Those are frozen eyes: videos that are kept on disk need no tower. With ZeRO-3, which gathers a weight at each use,
    they are also eyes that learn, and what projects slow tokens: the longer a video, the more often it is used.
    """
    eyes = ["vision_tower", "projector"]
    if engine is Engine.FSDP:
        return [part for part in eyes if not _learns(model.get_submodule(part))]
    if engine is Engine.DDP:
        return []
    layers = [f"language_model.layers.{layer}.self_attn" for layer in model.config.hybrid_layers]
    names = {name for name, _ in model.named_modules()}
    return eyes + [name for layer in layers for part in _SLOW if (name := f"{layer}.{part}") in names]


_SLOW = ("slow_attention", "k_norm")


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def prepare_sharing(trainer: Any, model: SlowFastForConditionalGeneration) -> None:
    """Tell accelerate, before it divides the model, what to divide and where."""
    engine = Engine.launched()
    whole = parts_kept_whole(engine, model)
    for part in whole:  # where they will run; the rest is moved when it is divided
        model.get_submodule(part).to(trainer.args.device)
    if engine is Engine.FSDP:
        plugin = trainer.accelerator.state.fsdp_plugin
        plugin.transformer_cls_names_to_wrap = [type(model.language_model.layers[0]).__name__]
        plugin.mixed_precision_policy = None  # autocast does it, and so computes what one process does
        if whole:
            plugin.ignored_modules = rf"(.*\.)?({'|'.join(whole)})"
    if engine is Engine.ZERO3:
        config = trainer.accelerator.state.deepspeed_plugin.deepspeed_config
        # As one process computes: DeepSpeed would have all weights in 16 bits.
        config["bf16"] = {"enabled": False}
        if trainer.args.bf16:
            config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
        # What is fetched ahead depends on what was used last time, which differs between processes.
        config["zero_optimization"] |= {"stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": 0}
        trainer.add_callback(_KeepWhole(trainer, [model.get_submodule(part) for part in whole]))


class _KeepWhole(TrainerCallback):
    """Has ZeRO-3 gather the weights of some modules once a step, and not at each use.

    Nor may it watch their use, since it demands that all processes use the same modules in the same order.
    """

    def __init__(self, trainer: Any, modules: list[nn.Module]) -> None:
        self._trainer = trainer
        self._weights: list[Any] = [weight for module in modules for weight in module.parameters()]
        self._hooks = [hooks for module in modules for part in module.modules() for hooks in _hooks_of(part)]
        self._known = [set(hooks) for hooks in self._hooks]

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        kept = self._trainer.model_wrapped.optimizer.parameter_offload.persistent_parameters
        known = {id(weight) for weight in kept}
        kept += [weight for weight in self._weights if id(weight) not in known]
        for weight in self._weights:
            weight.ds_persist = True  # made anew after a step of the optimizer
        for hooks, own in zip(self._hooks, self._known, strict=True):
            for added in hooks.keys() - own:
                del hooks[added]

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._weights[0].all_gather(self._weights)  # those that are not here, as after a state was saved


def _hooks_of(module: nn.Module) -> tuple[dict[int, Any], dict[int, Any]]:
    return module._forward_pre_hooks, module._forward_hooks
