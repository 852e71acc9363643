"""Floating-point operations counted while the network runs, by torch's FlopCounterMode; sizes only matter, not values.

Counts any network of ours, one without memory too (`count_on_meta`), which is how the full size is counted.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sfvqa.inference.engine import decode, prefill
from sfvqa.model import SlowFastCache, SlowFastConfig, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.hybrid_layer import LookingPositions, SlowContext
from sfvqa.model.loading import build_empty
from sfvqa.profiling.flops import Flops, PromptSize

_SLOW_ATTENTION = ".slow_attention"


def _attention_flops(query: Any, key: Any, *_: Any, **__: Any) -> int:
    """Scores and values, all of them, whichever kernel; query heads may share keys, which torch's formula refuses."""
    batch, heads, length, head_dim = query
    return int(4 * batch * heads * length * key[-2] * head_dim)


def _attention_kernels() -> Mapping[Any, Any]:
    """Every kernel that `scaled_dot_product_attention` may choose; torch itself counts nothing for the CPU's."""
    names = (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    return {getattr(torch.ops.aten, name): _attention_flops for name in names if hasattr(torch.ops.aten, name)}


class _Counter:
    """Counts what runs in its `with` block: all of it, and the part inside modules whose name ends so."""

    def __init__(self) -> None:
        self._mode = FlopCounterMode(display=False, custom_mapping=dict(_attention_kernels()))

    def __enter__(self) -> "_Counter":
        self._mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._mode.__exit__(*error)

    @property
    def total(self) -> float:
        return float(self._mode.get_total_flops())

    def inside(self, *endings: str) -> float:
        counts: dict[str, dict[Any, int]] = self._mode.get_flop_counts()
        return float(sum(sum(ops.values()) for name, ops in counts.items() if name.endswith(endings)))


@torch.inference_mode()
def count_on_model(
    model: SlowFastForConditionalGeneration, num_frames: int, prompt: list[int], visual_tokens: VisualTokens
) -> Flops:
    """Run the model on one black frame, on the prompt and on one token more, and count; frames all cost the same.

    Not for quantized weights, whose products torch does not know.
    """
    side = model.config.vision.image_size
    with _Counter() as seeing:
        list(model.encode_frames([torch.zeros(1, 3, side, side)]))
    projector = seeing.inside("Projector")
    with _Counter() as asking:
        state = prefill(model, [prompt], [visual_tokens])
    with _Counter() as writing:
        decode(model, state, torch.zeros(1, dtype=torch.long))
    return Flops(
        vision_tower=num_frames * (seeing.total - projector),
        projector=num_frames * projector,
        prefill=asking.total,
        cross_attention=asking.inside(_SLOW_ATTENTION, f"{_SLOW_ATTENTION}.kv_proj"),
        decode_per_token=writing.total,
    )


@torch.inference_mode()
def count_prefill_on_meta(config: SlowFastConfig, prompt: PromptSize) -> float:
    """The pass over a prompt, counted on the network without memory, so that the full size can be; sdpa, as a rule."""
    model = build_empty(SlowFastForConditionalGeneration, config, "sdpa")
    width = config.decoder_config.hidden_size
    with torch.device("meta"):
        slow = None
        if prompt.num_slow:
            looking = LookingPositions(
                torch.empty(1, prompt.num_looking, dtype=torch.long),
                torch.empty(1, prompt.num_looking, dtype=torch.bool),
            )
            slow = SlowContext(torch.empty(1, prompt.num_slow, width), None, looking, None)
        embeddings: Tensor = torch.empty(1, prompt.length, width)
        with _Counter() as counter:
            states = model.language_model(
                inputs_embeds=embeddings, cache=SlowFastCache(config), use_cache=True, slow=slow
            ).last_hidden_state
            model.lm_head(states[:, -1:])
    return counter.total
