"""The bundled model before it has learned anything: sizes and first values."""

from __future__ import annotations

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config

from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration, SlowFastVisionConfig
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.model.vision_tower import ConvNextBlock, VisionTower
from sfvqa.training.scenes import NUM_FRAMES

WIDTH = 128
IMAGE_SIZE = 64
TRAINING_MAX_LENGTH = 512
MAX_POSITIONS = 2048


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """64-pixel frames of 8 × 8 cells, 16 visual tokens a frame, four decoder layers of which two are hybrid."""
    decoder = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.04,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(image_size=IMAGE_SIZE, depths=(2, 2), dims=(32, 96)),
        text_config=decoder,
        video_pooling_stride=2,
        temporal_stride=8,
        min_fast_frames=4,
        hybrid_layers=(0, 2),
        training_num_frames=NUM_FRAMES,
        training_max_length=TRAINING_MAX_LENGTH,
        tie_word_embeddings=True,
    )


def build_tiny(tokenizer: PreTrainedTokenizerFast, seed: int) -> SlowFastForConditionalGeneration:
    """A fresh model whose first values depend on `seed` alone."""
    torch.manual_seed(seed)
    model = SlowFastForConditionalGeneration(tiny_config(tokenizer))
    prepare_vision(model.vision_tower)
    prepare_vision(model.projector)
    for module in model.modules():
        if isinstance(module, ConvNextBlock):
            nn.init.constant_(module.gamma, 0.3)  # ConvNeXt's 1e-6 is for towers ten times as deep
        elif isinstance(module, GatedSlowAttention):
            nn.init.constant_(module.warm_up_gate, 1.0)  # at zero nothing would ask it to learn
            assert module.gate_proj is not None
            nn.init.constant_(module.gate_proj.bias, 1.0)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model


def prepare_vision(part: VisionTower | nn.Module) -> None:
    """PyTorch's own first values for convolutions, variance-keeping ones for linear layers."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
            nn.init.zeros_(module.bias)
