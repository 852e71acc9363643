"""Attention on a CPU that computes in bfloat16: a block of queries at a time, by oneDNN's matrix products.

torch's own kernel for the CPU multiplies with what is slower there: a block of 128 queries whose scores stay in the
processor's caches takes a half to a third of its time. Scores are rounded to bfloat16, as in transformers' eager
attention; the softmax adds them up in float32.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BLOCK_ATTENTION = "sdpa_in_blocks"
"""By this name models find it, as they do `sdpa`, whose work it does."""

_BLOCK = 128  # queries
_FEWEST_SCORES = 256 * 256  # a head; below them the other kernel is as fast


def register() -> None:
    """Make it known to transformers' models."""
    AttentionInterface.register(BLOCK_ATTENTION, block_attention_forward)
    AttentionMaskInterface.register(BLOCK_ATTENTION, sdpa_mask)


def block_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers' sdpa_attention_forward, which does what no block is made for: few queries, other devices."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    is_for_blocks = (
        query.device.type == "cpu"
        and query.dtype is torch.bfloat16
        and num_queries * num_keys >= _FEWEST_SCORES
        and num_queries >= _BLOCK
        and (attention_mask is None or attention_mask.dtype is torch.bool)
        and not torch.is_grad_enabled()
    )
    if not is_for_blocks:
        result: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, is_causal=is_causal, **kwargs
        )
        return result
    is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    scale = 1 / math.sqrt(query.shape[-1]) if scaling is None else scaling
    return attend(query, key, value, attention_mask, scale, is_causal=is_causal and attention_mask is None), None


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, *, is_causal: bool) -> Tensor:
    """Queries `[B, heads, L, d]`, keys and values `[B, KV heads, K, d]` → `[B, L, heads, d]`.

    The boolean mask `[B, 1 or heads, L, K]` is true where a query looks. Heads that share keys are rows of one product.
    """
    batch_size, num_heads, length, head_dim = query.shape
    num_shared = key.shape[1]
    output = query.new_empty(batch_size, length, num_heads, head_dim)
    future = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool).triu(1)
    for row in range(batch_size):
        queries, values = query[row].unflatten(0, (num_shared, -1)), value[row].contiguous()
        keys = key[row].contiguous().transpose(1, 2)
        for start in range(0, length, _BLOCK):
            stop = min(start + _BLOCK, length)
            num_seen = stop if is_causal else key.shape[2]
            rows = queries[:, :, start:stop].flatten(1, 2)
            scores = torch.baddbmm(rows.new_empty(1), rows, keys[:, :, :num_seen], beta=0, alpha=scale)
            by_head = scores.view(num_heads, stop - start, num_seen)
            if is_causal:
                by_head[:, :, start:].masked_fill_(future[: stop - start, : stop - start], -math.inf)
            if mask is not None:
                by_head.masked_fill_(~mask[row, :, start:stop], torch.finfo(scores.dtype).min)
            seen = torch.bmm(scores.softmax(-1), values[:, :num_seen])
            output[row, start:stop] = seen.view(num_heads, stop - start, head_dim).transpose(0, 1)
    return output
