"""The network of a cell: one model class, its variants by config; what a prompt costs it, by formula."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import Qwen2Config

from sfvqa.inference.architecture import architecture_of, fast_tokens_of
from sfvqa.model import SlowAttentionScope, SlowFastConfig, SlowFastForConditionalGeneration, SlowFastVisionConfig
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.model.vision_tower import ConvNextBlock
from sfvqa.profiling.flops import PromptSize, prefill_flops, prompt_size
from sfvqa.training.comparison.cells import Tokens
from sfvqa.training.conversion import interleave
from sfvqa.training.tiny_model import prepare_vision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from sfvqa.training.comparison.cells import Settings, Variant

MAX_POSITIONS = 4096
OPEN = 1.0  # first value of the gates that are learned: at zero nothing would ask slow attention to learn


def config_of(settings: Settings, variant: Variant, tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """All differences between variants but the first values of the slow keys and values."""
    everything = variant.tokens is Tokens.ALL
    num_fast_frames = variant.num_frames if everything else min(variant.num_fast_frames, variant.num_frames)
    has_slow = variant.tokens is Tokens.SLOW_FAST
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(
            image_size=settings.image_size, depths=(2,) * len(settings.vision_dims), dims=settings.vision_dims
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            intermediate_size=3 * settings.width,
            num_hidden_layers=settings.num_layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            initializer_range=0.04,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        ),
        video_pooling_stride=2,
        temporal_stride=variant.num_frames // num_fast_frames,
        min_fast_frames=num_fast_frames,
        hybrid_layers=tuple(range(0, settings.num_layers, variant.hybrid_every)) if has_slow else (),
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
    for part in (model.vision_tower, model.projector):
        prepare_vision(part)
    for module in model.modules():
        if isinstance(module, ConvNextBlock):
            nn.init.constant_(module.gamma, 0.3)  # ConvNeXt's 1e-6 is for towers ten times as deep
        elif isinstance(module, GatedSlowAttention):
            if module.warm_up_gate.requires_grad:
                nn.init.constant_(module.warm_up_gate, OPEN)
            if module.gate_proj is not None:
                nn.init.constant_(module.gate_proj.bias, OPEN)
    model.load_state_dict(learned or {}, strict=False)
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
