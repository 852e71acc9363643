"""A process of a run that says what it holds of model and optimizer after its first step: in place of finetune."""

import sys
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback

from sfvqa.training import finetune
from sfvqa.training.trainer import VideoTrainer


def held_bytes(model: torch.nn.Module, optimizer: Any) -> int:
    """Of weights, gradients and the optimizer's own, but for single numbers, each memory once."""
    tensors = list[Tensor]()
    for parameter in model.parameters():
        tensors += [parameter, *([] if parameter.grad is None else [parameter.grad])]
        shared: Any = parameter
        if hasattr(shared, "ds_tensor"):  # ZeRO's share of it
            tensors.append(shared.ds_tensor)
    engine = getattr(optimizer, "optimizer", optimizer)  # accelerate's holds DeepSpeed's, which holds torch's
    if hasattr(engine, "fp32_partitioned_groups_flat"):
        tensors += engine.fp32_partitioned_groups_flat
        tensors += [part for of_group in engine.averaged_gradients.values() for part in of_group]
        tensors.append(engine.grad_partitions_flat_buffer)
        engine = engine.optimizer
    tensors += [part for one in engine.state.values() for part in one.values() if torch.is_tensor(part) and part.ndim]
    local = [getattr(tensor, "_local_tensor", tensor).untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in local if storage.nbytes()}.values())


class _Counter(TrainerCallback):
    def on_optimizer_step(self, args: Any, state: Any, *_: Any, **given: Any) -> None:
        if state.global_step == 0:
            print(f"process {args.process_index} holds {held_bytes(given['model'], given['optimizer'])} bytes")  # noqa: T201


class _Counted(VideoTrainer):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments | {"callbacks": [*arguments["callbacks"], _Counter()]})


if __name__ == "__main__":
    finetune.VideoTrainer = _Counted  # type: ignore[misc, assignment]
    sys.exit(finetune.main())
