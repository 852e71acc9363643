"""Floating-point operations counted while the network runs, by torch's FlopCounterMode: only sizes matter."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sfvqa.inference.engine import decode, prefill
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens
from sfvqa.registry.architecture import Flops


def _attention_flops(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Scores and values, all of them, whichever kernel; query heads may share keys, which torch's formula refuses."""
    batch, heads, length, head_dim = query
    return int(4 * batch * heads * length * key[-2] * head_dim)


def counter() -> FlopCounterMode:
    """Counts what runs in its `with` block."""
    names = (  # of every kernel that `scaled_dot_product_attention` may choose; torch itself counts nothing on the CPU
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    kernels = {getattr(torch.ops.aten, name): _attention_flops for name in names if hasattr(torch.ops.aten, name)}
    return FlopCounterMode(display=False, custom_mapping=kernels)


def _inside(counted: FlopCounterMode, *endings: str) -> float:
    """The part inside modules whose name ends so."""
    counts: dict[str, dict[Any, int]] = counted.get_flop_counts()
    return float(sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(endings)))


@torch.inference_mode()
def count_on_model(
    model: SlowFastForConditionalGeneration, num_frames: int, prompt: list[int], visual_tokens: VisualTokens
) -> Flops:
    """Run the model on one black frame, on the prompt and on one token more, and count; frames all cost the same.

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
