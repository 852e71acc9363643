"""What to do when memory ran out: the largest setting that should fit, by the estimate, as a sentence."""

import torch

from sfvqa.inference.architecture import architecture_of, fast_tokens_of
from sfvqa.inference.fit import quantizations_on, remedy_for
from sfvqa.inference.memory import RunSize, estimate_memory
from sfvqa.model import SlowFastConfig
from sfvqa.registry import QuantizationName

SMALL_CHUNK_SIZE = 1  # frames in the vision tower at a time, once memory ran out


def what_should_fit(
    config: SlowFastConfig,
    num_frames: int,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantization: QuantizationName,
    free_bytes: int | None,
    is_loaded: bool,
) -> str:
    """The remedy for a question about `num_frames` frames that `free_bytes` were not enough for.

    What a model that `is_loaded` takes counts as free: the next try begins anew.
    """
    sizes, fast = architecture_of(config), fast_tokens_of(config)
    name = str(dtype).removeprefix("torch.")
    run = RunSize(num_frames, name, device.type, quantization, chunk_size=SMALL_CHUNK_SIZE)
    if free_bytes is not None and is_loaded:
        held = estimate_memory(sizes, fast, run)
        free_bytes += held.weights_bytes + held.process_bytes
    return remedy_for(sizes, fast, run, free_bytes, quantizations_on(device.type))
