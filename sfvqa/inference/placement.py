"""Which device each layer goes to: all to one, or spread over several GPUs when no single one has the room."""

from collections.abc import Callable
from typing import Any

import torch

from sfvqa.errors import OutOfMemoryError
from sfvqa.inference.device import free_memory_bytes
from sfvqa.model.building import Placement
from sfvqa.model.quantization import Quantization, quantizable_linears
from sfvqa.wording import plural

ROOM = 0.6  # of a GPU's free memory may be weights; the rest is for caches and activations
_BITS = {Quantization.EIGHT_BIT: 8, Quantization.FOUR_BIT: 4}


def place(name: str, device: torch.device, dtype: torch.dtype, quantization: Quantization) -> Placement:
    """Where a model goes: to `device`; with `auto` and several GPUs to as many as it takes, split between layers."""
    if name != "auto" or device.type != "cuda" or torch.cuda.device_count() < 2:
        return device
    free = {index: free_memory_bytes(torch.device("cuda", index)) or 0 for index in range(torch.cuda.device_count())}
    return spread_over(free, dtype, quantization)


def spread_over(
    free_bytes: dict[int, int], dtype: torch.dtype, quantization: Quantization
) -> Callable[[Any], dict[str, torch.device]]:
    """What computes a device map for a network without memory: the first GPU if it has the room, else all evenly.

    `free_bytes` is the free memory of each GPU by its number. The map is accelerate's, which keeps tied weights
    together and no layer in two places.
    """

    def device_map(model: Any) -> dict[str, torch.device]:
        from accelerate.utils import CustomDtype, compute_module_sizes, get_balanced_memory, infer_auto_device_map

        small = {8: torch.int8, 4: CustomDtype.INT4}.get(_BITS.get(quantization, 0))
        special = {f"{name}.weight": small for name in quantizable_linears(model)} if small is not None else None
        needed = compute_module_sizes(model, dtype=dtype, special_dtypes=special)[""]
        first = min(free_bytes)
        if needed <= ROOM * free_bytes[first]:
            return {"": torch.device("cuda", first)}
        sizes = {
            "no_split_module_classes": model._no_split_modules,
            "dtype": dtype,
            "special_dtypes": special,
        }
        balanced = get_balanced_memory(model, max_memory=dict(free_bytes), **sizes)
        found = infer_auto_device_map(model, max_memory=balanced, **sizes)
        if not all(isinstance(where, int) for where in found.values()):  # accelerate would leave some on the disk
            raise OutOfMemoryError(
                f"The weights take {needed / 1e9:.1f} GB and do not fit the free memory of "
                f"{plural(len(free_bytes), 'GPU')}.",
                "Use --quant 4bit, free some memory, or use a smaller model.",
            )
        return {part: torch.device("cuda", where) for part, where in found.items()}

    return device_map
