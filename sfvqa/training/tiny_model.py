"""The bundled model before it has learned anything: sizes and first values."""

from __future__ import annotations

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration, SlowFastVisionConfig
from sfvqa.training.scenes import NUM_FRAMES
from sfvqa.training.small_model import prepare, small_decoder

WIDTH = 128
IMAGE_SIZE = 64
TRAINING_MAX_LENGTH = 512
MAX_POSITIONS = 2048


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """64-pixel frames of 8 × 8 cells, 16 visual tokens a frame, four decoder layers of which two are hybrid."""
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(image_size=IMAGE_SIZE, depths=(2, 2), dims=(32, 96)),
        text_config=small_decoder(tokenizer, WIDTH, num_layers=4, max_positions=MAX_POSITIONS),
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
    prepare(model)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )
    return model
