"""The two passes of generation on batches that are padded already: a prompt's, and one token's."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from sfvqa.model import SlowFastCache, SlowFastForConditionalGeneration, VisualTokens


def prefill(
    model: SlowFastForConditionalGeneration,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    visual_tokens: Sequence[VisualTokens | None],
    **kwargs: Any,
) -> tuple[Tensor, SlowFastCache]:
    """Logits `[B, V]` of the next token, and the cache to decode with."""
    cache = SlowFastCache(model.config)
    output = model(
        input_ids, attention_mask=attention_mask, visual_tokens=visual_tokens, cache=cache, use_cache=True,
        logits_to_keep=1, **kwargs,
    )  # fmt: skip
    return output.logits[:, -1], cache


def decode(
    model: SlowFastForConditionalGeneration, token_ids: Tensor, attention_mask: Tensor | None, cache: SlowFastCache
) -> Tensor:
    """Tokens `[B, 1]` and the mask `[B, L + 1]` of all positions so far → logits `[B, V]`."""
    logits: Tensor = model(token_ids, attention_mask=attention_mask, cache=cache, use_cache=True).logits[:, -1]
    return logits
