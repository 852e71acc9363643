"""A process of a run that says what it holds of model and optimizer after its first step: in place of finetune."""

import sys
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from sfvqa.model import slow_fast
from sfvqa.training import finetune
from sfvqa.training.engines import Engine
from sfvqa.training.memory import training_bytes
from sfvqa.training.trainer import VideoTrainer


def held_bytes(model: torch.nn.Module, optimizer: Any) -> int:
    """Of weights, gradients and the optimizer's own, each memory once; of a shared model but for single numbers."""
    least = 0 if Engine.launched() is Engine.DDP else 1
    tensors = list[Tensor]()
    for parameter in model.parameters():
        tensors += [parameter, *([] if parameter.grad is None else [parameter.grad])]
        shared: Any = parameter
        if hasattr(shared, "ds_tensor"):  # ZeRO's share of it
            tensors.append(shared.ds_tensor)
    engine = getattr(optimizer, "optimizer", optimizer)  # accelerate's holds DeepSpeed's, which holds torch's
    if hasattr(engine, "fp32_partitioned_groups_flat"):
        tensors += engine.fp32_partitioned_groups_flat
        tensors.append(engine.grad_partitions_flat_buffer)
        engine = engine.optimizer
    tensors += [
        part for one in engine.state.values() for part in one.values() if torch.is_tensor(part) and part.ndim >= least
    ]
    local = [getattr(tensor, "_local_tensor", tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in local if storage.nbytes()}.values())


class _Counter(TrainerCallback):
    def __init__(self, said: int) -> None:
        self._said = said

    def on_optimizer_step(self, args: Any, state: Any, *_: Any, **given: Any) -> None:
        if state.global_step == 0 and args.process_index == 0:
            print(f"held {held_bytes(given['model'], given['optimizer'])} of {self._said} bytes")  # noqa: T201


class _Counted(VideoTrainer):
    def __init__(self, **arguments: Any) -> None:
        network = getattr(arguments["model"], "get_base_model", lambda: arguments["model"])()
        counter = _Counter(
            training_bytes(network, arguments["args"].optim, Engine.launched(), arguments["args"].world_size)
        )
        super().__init__(**arguments | {"callbacks": [*arguments["callbacks"], counter]})


if __name__ == "__main__":
    vars(finetune)["VideoTrainer"] = _Counted
    vars(slow_fast)["_PROJECTED_AT_A_TIME"] = 100  # so that for a longer video slow tokens are projected more often
    sys.exit(finetune.main())
