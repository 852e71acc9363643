"""Lower bounds of stages on this machine: operations over the matrix rate, bytes over the bandwidth.

Both rates are measured, on one device, in the model's dtype: no data sheet's. Operations are counted while the network
runs, by torch's FlopCounterMode, to hold the formulas of `registry.architecture` to them.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sfvqa.checkpoints.device import release_memory, synchronize
from sfvqa.checkpoints.memory import ITEM_BYTES, weights_bytes
from sfvqa.inference.engine import decode
from sfvqa.inference.prefill import prefill
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.packing import onednn_has_bfloat16
from sfvqa.registry import Architecture, QuantizationName
from sfvqa.registry.architecture import Flops, PromptSize, slow_keys_values_flops

_TRIES = 5
_SIDES = {"cuda": 8192, "mps": 4096, "cpu": 1536}  # of the matrices; large enough to be computed at full speed
_COPIED_BYTES = {"cuda": 1 << 30, "mps": 1 << 28, "cpu": 1 << 27}  # beyond any processor's cache


@dataclass(frozen=True)
class DeviceRates:
    """The best of several tries: operations per second of a matrix product, bytes per second of a copy."""

    flops_per_second: float
    bytes_per_second: float


@torch.inference_mode()
def measure_rates(device: torch.device, dtype: torch.dtype) -> DeviceRates | None:
    """Measure both rates in about a second, with 2 GB of memory on a GPU; None if that is not free."""
    try:
        return DeviceRates(_matrix_rate(device, dtype), _bandwidth(device))
    except torch.OutOfMemoryError:
        return None
    finally:
        release_memory(device)


def _matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    side = _SIDES[device.type]
    # Random: a GPU multiplies ones faster, since they take less power.
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    return 2 * side**3 / _fastest(device, lambda: left @ right)


def _bandwidth(device: torch.device) -> float:
    num_bytes = _COPIED_BYTES[device.type]
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _fastest(device, lambda: target.copy_(source))


def floors(
    sizes: Architecture, flops: Flops, prompt: PromptSize, rates: DeviceRates, *, dtype: str, quantization: str
) -> dict[str, float]:
    """Seconds by the names of `measuring.Figures`: of the vision tower, the projector, the prefill, the slow keys and
    values, and each further token.

    Decoding one token reads every weight of the decoder and what is kept of prompt and slow tokens once; a prefill
    cannot take less than reading the weights either.
    """
    item = ITEM_BYTES[dtype]
    weights = decoder_bytes(sizes, item, QuantizationName(quantization))
    kept = 2 * sizes.key_value_size * item
    cache = kept * (sizes.num_layers * prompt.length + len(sizes.hybrid_layers) * prompt.num_slow)
    rate, bandwidth = rates.flops_per_second, rates.bytes_per_second
    return {
        "vision_tower_seconds": flops.vision_tower / rate,
        "projector_seconds": flops.projector / rate,
        "slow_keys_values_seconds": slow_keys_values_flops(sizes, prompt.num_slow) / rate,
        "prefill_seconds": max(flops.prefill / rate, weights / bandwidth),
        "decode_seconds_per_token": max(flops.decode_per_token / rate, (weights + cache) / bandwidth),
    }


def decoder_bytes(sizes: Architecture, item: int, quantization: QuantizationName) -> int:
    """Size of the weights that every new token needs: decoder layers and lm_head."""
    seeing = (sizes.num_vision_parameters + sizes.num_projector_parameters) * item
    looked_up = 0 if sizes.tie_word_embeddings else sizes.vocab_size * sizes.hidden_size * item
    return weights_bytes(sizes, quantization, item) - seeing - looked_up


def _fastest(device: torch.device, work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(_TRIES):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def _attention_flops(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Scores and values, all of them, whichever kernel; query heads may share keys, which torch's formula refuses."""
    batch, heads, length, head_dim = query
    return int(4 * batch * heads * length * key[-2] * head_dim)


def _packed_linear_flops(states: Any, weight: Any, *_: Any, **__: Any) -> int:
    return int(2 * math.prod(states) * weight[0])


def counter() -> FlopCounterMode:
    """A counter of the operations in its `with` block."""
    names = (  # of every kernel that `scaled_dot_product_attention` may choose; torch itself counts nothing on the CPU
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    kernels: dict[Any, Callable[..., int]] = {
        getattr(torch.ops.aten, name): _attention_flops for name in names if hasattr(torch.ops.aten, name)
    }
    if onednn_has_bfloat16():
        kernels[torch.ops.mkldnn._linear_pointwise] = _packed_linear_flops
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _inside(counted: FlopCounterMode, *endings: str) -> float:
    """Operations inside modules whose name has one of these endings."""
    counts: dict[str, dict[Any, int]] = counted.get_flop_counts()
    return float(sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(endings)))


@torch.inference_mode()
def count_on_model(
    model: SlowFastForConditionalGeneration, num_frames: int, prompt: list[int], visual_tokens: VisualTokens
) -> Flops:
    """Count the operations of one black frame, the prompt and one decoded token; all frames cost the same.

    Not for quantized weights, whose products torch does not know.
    """
    side = model.config.vision.image_size
    with counter() as seeing:
        list(model.encode_frames([torch.zeros(1, 3, side, side)]))
    with counter() as asking:
        state = prefill(model, [prompt], [visual_tokens])
    with counter() as writing:
        decode(model, state, torch.zeros(1, dtype=torch.long))
    projector = _inside(seeing, "Projector")
    return Flops(
        vision_tower=num_frames * (seeing.get_total_flops() - projector),
        projector=num_frames * projector,
        prefill=float(asking.get_total_flops()),
        cross_attention=_inside(asking, ".slow_attention", ".slow_attention.kv_proj"),
        decode_per_token=float(writing.get_total_flops()),
    )
