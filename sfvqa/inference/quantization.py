"""Which quantization a model is loaded in: from what was asked for to what can be done on its device."""

import torch

from sfvqa.errors import UsageError
from sfvqa.model.quantization import Quantization
from sfvqa.registry import QuantizationName

_DEVICES = ("cuda", "cpu")  # on MPS bitsandbytes would fetch its kernels from the network when they are first used


def resolve_quantization(name: str, device: torch.device, stored: Quantization) -> Quantization:
    """The quantization `name` means on `device` for weights stored as `stored`; UsageError when it cannot be.

    `auto` that nobody resolved by the free memory is what the checkpoint is stored in.
    """
    wanted = _known(name)
    quantization = stored if wanted is QuantizationName.AUTO else Quantization(wanted.value)
    if quantization is not Quantization.NONE and device.type not in _DEVICES:
        raise UsageError(
            f"{quantization} does not run on {device.type}.", "Use --quant none, or a CUDA device or the CPU."
        )
    return quantization


def _known(name: str) -> QuantizationName:
    try:
        return QuantizationName(name)
    except ValueError:
        known = ", ".join(QuantizationName)
        raise UsageError(f"There is no quantization {name!r}.", f"Use one of {known}.") from None
