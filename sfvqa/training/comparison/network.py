"""The network of a cell: one model class, its variants by config; what a prompt costs it, by formula."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import nn

from sfvqa.inference.architecture import architecture_of, fast_tokens_of
from sfvqa.model import SlowAttentionScope, SlowFastConfig, SlowFastForConditionalGeneration, SlowFastVisionConfig
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.profiling.flops import PromptSize, prefill_flops, prompt_size
from sfvqa.training.comparison.cells import Tokens
from sfvqa.training.conversion import interleave
from sfvqa.training.small_model import prepare, small_decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from sfvqa.training.comparison.cells import Settings, Variant

MAX_POSITIONS = 4096
_LAYER = re.compile(r"(language_model\.layers\.)(\d+)(\..+)")


def config_of(settings: Settings, variant: Variant, tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """All differences between variants but the first values of the slow keys and values."""
    num_layers = settings.num_layers * (2 if variant.deep else 1)
    everything = variant.tokens is Tokens.ALL
    num_fast_frames = variant.num_frames if everything else min(variant.num_fast_frames, variant.num_frames)
    has_slow = variant.tokens is Tokens.SLOW_FAST
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(
            image_size=settings.image_size, depths=(2,) * len(settings.vision_dims), dims=settings.vision_dims
        ),
        text_config=small_decoder(tokenizer, settings.width, num_layers=num_layers, max_positions=MAX_POSITIONS),
        video_pooling_stride=2,
        temporal_stride=variant.num_frames // num_fast_frames,
        min_fast_frames=num_fast_frames,
        hybrid_layers=tuple(range(0, num_layers, variant.hybrid_every)) if has_slow else (),
        slow_attention_scope=variant.scope,
        gating=variant.gating,
        training_num_frames=variant.num_frames,
        tie_word_embeddings=True,
    )


def build(
    settings: Settings,
    variant: Variant,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    learned: Mapping[str, Tensor] | None = None,
) -> SlowFastForConditionalGeneration:
    """A model that starts from what was `learned`, and fresh where that has nothing.

    What variants have in common starts from the same values for the same seed.
    """
    torch.manual_seed(seed)
    model = SlowFastForConditionalGeneration(config_of(settings, variant, tokenizer))
    _draw_again(model, seed)
    torch.manual_seed(seed)
    prepare(model, variant.first_gate)
    model.load_state_dict(deepened(learned) if learned and variant.deep else learned or {}, strict=False)
    if variant.slow_from_decoder:
        for layer in model.config.hybrid_layers:
            slow_from_decoder(model.language_model.get_submodule(f"layers.{layer}.self_attn"))
    return model


def _draw_again(model: SlowFastForConditionalGeneration, seed: int) -> None:
    """First values of the decoder, module by module: those of slow attention must not shift what comes after them."""
    deviation = model.config.decoder_config.initializer_range
    for slow in (False, True):
        generator = torch.Generator().manual_seed(seed + slow)
        for name, parameter in model.language_model.named_parameters():
            if ("slow_attention" in name) == slow and parameter.ndim == 2:
                nn.init.normal_(parameter, std=deviation, generator=generator)


def deepened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a decoder of twice as many layers with the same logits: behind each layer comes a copy of it that
    adds nothing yet, since its last projections are zero.
    """
    found = {}
    for name, value in state.items():
        layer = _LAYER.match(name)
        if layer is None:
            found[name] = value
            continue
        before, number, after = layer.groups()
        found[f"{before}{2 * int(number)}{after}"] = value
        is_last = after in (".self_attn.o_proj.weight", ".mlp.down_proj.weight")
        found[f"{before}{2 * int(number) + 1}{after}"] = torch.zeros_like(value) if is_last else value
    return found


@torch.no_grad()
def slow_from_decoder(attention: nn.Module) -> None:
    """Give slow attention the layer's own keys and values to start from, interleaved head by head as it reads them."""
    slow = attention.slow_attention
    assert isinstance(slow, GatedSlowAttention)
    for name in ("weight", "bias"):
        keys, values = (getattr(projection, name) for projection in (attention.k_proj, attention.v_proj))
        getattr(slow.kv_proj, name).copy_(interleave(keys, values, slow.num_key_value_heads))


def prompt_flops(config: SlowFastConfig, num_frames: int, num_text: int) -> float:
    """Floating-point operations of the decoder's pass over a prompt about a video, cross-attention included."""
    sizes = architecture_of(config)
    prompt = prompt_size(sizes, fast_tokens_of(config), num_frames, num_text)
    if config.slow_attention_scope is SlowAttentionScope.ALL:
        prompt = PromptSize(prompt.length, prompt.num_slow, num_looking=prompt.length)
    if not config.hybrid_layers:
        prompt = PromptSize(prompt.length)
    return prefill_flops(sizes, prompt)
