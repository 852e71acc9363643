"""A network of any size with random weights, made where it runs, to measure what cannot be fetched. Answers nothing."""

import zlib

import torch
from torch import Tensor

from sfvqa.model.building import ModelBuilder, Placement, build_empty
from sfvqa.model.config import SlowFastConfig
from sfvqa.model.quantization import Quantization, quantizer_for
from sfvqa.model.slow_fast import SlowFastForConditionalGeneration

STANDARD_DEVIATION = 0.02
_OPEN = 0.5  # gates and layer scales: at their first value, 0, slow attention and the vision tower would do nothing


def random_model(
    config: SlowFastConfig,
    *,
    dtype: torch.dtype,
    device_map: Placement = None,
    attn_implementation: str | None = None,
    quantization: Quantization | str = Quantization.NONE,
    seed: int = 0,
) -> SlowFastForConditionalGeneration:
    """A model whose tensors are drawn one by one on their devices, so that no more than one is there unquantized.

    Weights are normal with a deviation of 0.02, norms 1, biases 0; the same seed gives the same model on one device.
    """
    model = build_empty(SlowFastForConditionalGeneration, config, attn_implementation)
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}
    builder = ModelBuilder(model, dtype, device_map, quantizer_for(quantization))
    for name, shape in shapes.items():
        builder.put(name, _draw(name, shape, dtype, builder.device_of(name), seed), copy=False)
    finished: SlowFastForConditionalGeneration = builder.finish()
    return finished


def _draw(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    if name.endswith((".gamma", ".warm_up_gate", "gate_proj.bias")):
        return tensor.fill_(_OPEN)
    if len(shape) == 1:
        return tensor.fill_(1.0 if name.endswith("weight") else 0.0)
    own_seed = zlib.crc32(f"{seed} {name}".encode())  # by name: the order of modules does not matter
    return tensor.normal_(std=STANDARD_DEVIATION, generator=torch.Generator(device).manual_seed(own_seed))
