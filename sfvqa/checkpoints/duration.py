"""Estimate how long a run takes on a CPU: its operations divided by the CPU's speed."""

import time
from typing import NamedTuple

from sfvqa.registry import Architecture
from sfvqa.registry.architecture import PromptSize, decode_flops, prefill_flops, projector_flops, vision_flops

WORTH_SAYING_SECONDS = 60.0
_MEASURE_SECONDS = 0.1
_SIDE = 1024  # of the matrices it is measured with
_EFFICIENCY = 0.5  # of a large matrix product, which a network reaches with its convolutions, norms and GELUs


class Operations(NamedTuple):
    """Floating-point operations, a multiplication and an addition counted as two."""

    vision: float
    prefill: float
    decode: float

    @property
    def total(self) -> float:
        """All three."""
        return sum(self)


def count_operations(
    sizes: Architecture, *, num_frames: int, num_slow: int, length: int, num_new_tokens: int, num_questions: int = 1
) -> Operations:
    """Count the operations of questions about one video: prompts of `length` tokens, answers of `num_new_tokens`.

    >>> from sfvqa.registry import find_model
    >>> sizes = find_model("slowfast-7b-64f").architecture
    >>> needed = count_operations(sizes, num_frames=64, num_slow=5184, length=1346, num_new_tokens=1)
    >>> [round(part / 1e12, 2) for part in (needed.vision, needed.prefill, needed.decode)]
    [129.27, 18.08, 0.01]
    """
    prompt = PromptSize(length, num_slow)
    return Operations(
        vision=num_frames * (vision_flops(sizes) + projector_flops(sizes)),
        prefill=num_questions * prefill_flops(sizes, prompt, skip_masked=True),
        decode=num_questions * num_new_tokens * decode_flops(sizes, length, num_slow),
    )


def measure_cpu_speed(dtype: str) -> float:
    """Measure, for a tenth of a second, the floating-point operations per second of matrix products in `dtype`."""
    import torch

    left, right = (torch.ones(_SIDE, _SIDE, dtype=getattr(torch, dtype)) for _ in range(2))
    _ = left @ right  # the first one prepares
    products, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _MEASURE_SECONDS:
        _ = left @ right
        products += 1
    return products * 2 * _SIDE**3 / elapsed


def seconds_on_cpu(operations: Operations, operations_a_second: float) -> float:
    """Estimated duration in seconds."""
    return operations.total / (operations_a_second * _EFFICIENCY)
