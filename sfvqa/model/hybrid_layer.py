"""The slow-fast idea itself: gated cross-attention to slow tokens inside a decoder layer, for any decoder family.

Two mixins turn a family's attention and model into hybrid ones. What they add is
`a += gate · softmax(q k_sᵀ/√d) v_s` between self-attention and `o_proj`, for the positions that look (section 3.2).
Everything else of a decoder is transformers' own: a further family is a line in `FAMILIES`, if its attention fits
HybridAttentionMixin.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward

from sfvqa.errors import CheckpointError
from sfvqa.model.config import Gating, SlowAttentionScope, SlowFastConfig


@dataclass(frozen=True, eq=False)
class LookingPositions:
    """Which positions of each sample look at slow tokens, as indices padded to the most there are in a sample.

    `index` `[B, N]` into the sequence, or None when every position looks (decoding); `is_real` `[B, N]`, false at
    padding and for samples without a video.
    """

    index: Tensor | None
    is_real: Tensor

    @classmethod
    def of(
        cls, scope: str, *, has_video: Tensor, length: int, is_text: Tensor | None, attention_mask: Tensor | None
    ) -> "LookingPositions | None":
        """Those of the last `length` that the scope names, never padding, only in samples with a video (`[B, 1]`).

        None when nothing looks.
        """
        if is_text is None and length == 1:
            return cls(index=None, is_real=has_video)
        looks = has_video.expand(-1, length)
        if is_text is not None:
            is_text = is_text.to(looks.device)
            match scope:
                case SlowAttentionScope.TEXT:
                    looks = looks & is_text
                case SlowAttentionScope.TEXT_AFTER_VIDEO:
                    looks = looks & is_text & (~is_text).cumsum(dim=1).bool()
        if attention_mask is not None:
            looks = looks & attention_mask[:, -length:].bool()
        num_looking = int(looks.sum(dim=1).max())
        if num_looking == 0:
            return None
        index = looks.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :num_looking]
        return cls(index, looks.gather(1, index))

    def gather(self, states: Tensor) -> Tensor:
        """`[B, L, X]` → `[B, N, X]`."""
        if self.index is None:
            return states
        return states.gather(1, self.index[..., None].expand(-1, -1, states.shape[-1]))

    def on(self, device: torch.device) -> "LookingPositions":
        """The same on another device."""
        return LookingPositions(None if self.index is None else self.index.to(device), self.is_real.to(device))

    def add(self, states: Tensor, update: Tensor) -> Tensor:
        """Add `update` `[B, N, X]` to `states` `[B, L, X]` at these positions, nothing at padding."""
        update = update.to(states.dtype) * self.is_real[..., None].to(states.dtype)
        if self.index is None:
            return states + update
        return states.scatter_add(1, self.index[..., None].expand_as(update), update)


@dataclass(frozen=True, eq=False)
class SlowKeysValues:
    """Slow keys and values `[B, KV heads, S, head_dim]` of one hybrid layer, with who looks and what is padding.

    `padding_bias` `[B, 1, 1, S]` is added to the attention scores: 0, and at padding the lowest finite number, since
    -inf would make a row of padding NaN; None when nothing is padded.
    """

    keys: Tensor
    values: Tensor
    padding_bias: Tensor | None
    looking: LookingPositions


class SlowInLayers(Mapping[int, SlowKeysValues]):
    """Slow keys and values that each hybrid layer projects itself when it looks, where none are kept: in training.

    Only then are a layer's weights at hand where processes share them, and only what is computed in a layer is computed
    again by activation checkpointing.
    """

    def __init__(self, layers: Sequence[int], project: Callable[[int], SlowKeysValues]) -> None:
        self._layers, self._project = frozenset(layers), project

    def __getitem__(self, layer_idx: int) -> SlowKeysValues:
        if layer_idx not in self._layers:
            raise KeyError(layer_idx)
        return self._project(layer_idx)

    def __iter__(self) -> Iterator[int]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


class GatedSlowAttention(nn.Module):
    """Cross-attention from a layer's own queries to the slow tokens, weighted by the gates that `gating` names.

    The warm-up gate is one number a layer and starts at zero, where the layer equals the plain decoder's; the dynamic
    gate is one number a token, computed from the output of self-attention. Without a warm-up gate its place holds a
    1 that is not learned, so that slow attention can be shut off all the same.
    """

    is_causal = False
    num_key_value_groups = 1  # as many queries as keys, see `forward`: no attention has to repeat the keys

    def __init__(self, config: SlowFastConfig, layer_idx: int, head_dim: int) -> None:
        super().__init__()
        decoder, gating = config.decoder_config, Gating(config.gating)
        self.config = decoder
        self.layer_idx = layer_idx
        self.head_dim = head_dim
        self.num_key_value_heads: int = decoder.num_key_value_heads
        self.squash_warm_up = gating.has_warm_up and config.slow_attention_scope is not SlowAttentionScope.ALL
        self.kv_proj = nn.Linear(decoder.hidden_size, 2 * self.num_key_value_heads * head_dim)
        self.gate_proj = nn.Linear(decoder.num_attention_heads * head_dim, 1) if gating.is_dynamic else None
        self.first_warm_up = 0.0 if gating.has_warm_up else 1.0
        self.warm_up_gate = nn.Parameter(torch.full((1,), self.first_warm_up), requires_grad=gating.has_warm_up)

    def forward(self, query: Tensor, attended: Tensor, slow: SlowKeysValues) -> Tensor:
        """Add gated slow attention to `attended` `[B, L, heads · head_dim]`; `query` is `[B, heads, L, head_dim]`.

        The heads that share keys and values go in as more queries of one head `[B, KV heads, N · group, head_dim]`:
        nothing is causal here, so that it is the same, and in no implementation, masked or not, are keys copied.
        """
        looking = slow.looking
        own = looking.gather(attended)
        queries = looking.gather(query.transpose(1, 2).flatten(2))
        grouped = queries.unflatten(-1, (self.num_key_value_heads, -1, self.head_dim)).transpose(1, 2).flatten(2, 3)
        kernel = self.config._attn_implementation
        if slow.padding_bias is not None and "flash" in kernel:
            kernel = "sdpa"  # flash-attn takes a padding mask only over as many keys as queries
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kernel, eager_attention_forward)
        seen, _ = attend(
            self,
            grouped,
            slow.keys,
            slow.values,
            slow.padding_bias,
            scaling=self.head_dim**-0.5,
            dropout=0.0,
            is_causal=False,
        )
        seen = seen.transpose(1, 2).unflatten(2, (queries.shape[1], -1)).transpose(1, 2).flatten(2)
        return looking.add(attended, self.gate(own) * seen)

    def gate(self, own: Tensor) -> Tensor:
        """Weight of slow attention `[B, N, 1]`, given the output of self-attention `own` `[B, N, heads · d]`."""
        warm_up = torch.tanh(self.warm_up_gate) if self.squash_warm_up else self.warm_up_gate
        dynamic = own.new_ones(*own.shape[:2], 1) if self.gate_proj is None else torch.tanh(self.gate_proj(own))
        return warm_up * dynamic


class HybridAttentionMixin:
    """A decoder family's self-attention with slow attention added before `o_proj`.

    Put before the family's attention class. Written for families that project with `q_proj`, `k_proj`, `v_proj`,
    `o_proj`, rotate with RoPE and may normalise queries and keys (`q_norm`, `k_norm`).
    """

    slow_attention: GatedSlowAttention

    def __init__(self: Any, config: SlowFastConfig, layer_idx: int) -> None:
        decoder = config.decoder_config
        super().__init__(decoder, layer_idx)  # type: ignore[call-arg]
        if not hasattr(self, "sliding_window"):  # Mistral's has one window for all layers, and none of its own
            self.sliding_window = decoder.sliding_window if decoder.model_type == "mistral" else None
        self.slow_attention = GatedSlowAttention(config, layer_idx, self.head_dim)

    def forward(
        self: Any,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None,
        cache: Cache | None = None,
        slow: Mapping[int, SlowKeysValues] | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As the family's; plain self-attention where `slow` has nothing for this layer."""
        heads = (*hidden_states.shape[:-1], -1, self.head_dim)
        query = self.q_proj(hidden_states).view(heads)
        key = self.k_proj(hidden_states).view(heads)
        if hasattr(self, "q_norm"):
            query, key = self.q_norm(query), self.k_norm(key)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query.transpose(1, 2), key.transpose(1, 2), *position_embeddings)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )
        attended = attended.flatten(2)
        if slow and (looked_at := slow.get(self.layer_idx)) is not None:
            attended = self.slow_attention(query, attended, looked_at)
        return self.o_proj(attended), weights

    def project_slow(self: Any, slow: Tensor) -> tuple[Tensor, Tensor]:
        """Slow tokens `[B, S, D]`, normalised as the layer's input is → keys and values `[B, KV heads, S, head_dim]`.

        They have no RoPE; keys are normalised where queries are. The projection's rows lie `[kv_head, (k | v),
        head_dim]`: reading them as `[k; v]` scrambles the heads.
        """
        own = self.slow_attention
        both = own.kv_proj(slow).unflatten(-1, (own.num_key_value_heads, 2, own.head_dim))
        keys, values = both.transpose(1, 2).unbind(dim=-2)
        return (self.k_norm(keys) if hasattr(self, "k_norm") else keys), values


FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""By transformers' model type, how the names of a family's classes begin."""


class HybridModelMixin:
    """A family's decoder whose `hybrid_layers` also attend to slow tokens; put before the family's model."""

    attention_class: type[Any]

    def __init__(self: Any, config: SlowFastConfig) -> None:
        super().__init__(config.decoder_config)  # type: ignore[call-arg]
        for layer_idx in config.hybrid_layers:
            self.layers[layer_idx].self_attn = self.attention_class(config, layer_idx)
        self.post_init()


@cache
def hybrid_decoder(model_type: str) -> type[Any]:
    """The hybrid model of a family, made of its attention and its model; CheckpointError for an unknown one."""
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Decoders of type {model_type!r} have no hybrid layers.", f"Known: {', '.join(sorted(FAMILIES))}."
        )
    family = FAMILIES[model_type]
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    plain_attention, plain_model = (getattr(module, f"{family}{part}") for part in ("Attention", "Model"))
    attention = type(f"Hybrid{family}Attention", (HybridAttentionMixin, plain_attention), {})
    return type(f"Hybrid{family}Model", (HybridModelMixin, plain_model), {"attention_class": attention})
