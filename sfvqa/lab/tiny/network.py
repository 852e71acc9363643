"""The bundled model before training: its sizes, its first values, and a tokenizer learned from its questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from sfvqa.lab.network import MODEL_MAX_LENGTH, learn_tokenizer, prepare, small_decoder
from sfvqa.lab.tiny.questions import REFUSAL, Family, ask
from sfvqa.lab.tiny.scenes import NUM_FRAMES, random_scene
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.families.slowfast import SlowFastVisionConfig

if TYPE_CHECKING:
    from collections.abc import Iterator


VOCAB_SIZE = 768
WIDTH = 128
IMAGE_SIZE = 64
TRAINING_MAX_LENGTH = 512


def train_tokenizer(*, seed: int = 0, num_scenes: int = 3000, vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """Learn tiny's tokenizer from tiny's questions."""
    return learn_tokenizer(_corpus(seed, num_scenes), vocab_size)


def _corpus(seed: int, num_scenes: int) -> Iterator[str]:
    rng = np.random.default_rng([seed, 77])
    for _ in range(num_scenes // 10):
        yield "system\nYou are a helpful assistant.\nuser\nassistant\n"
        yield REFUSAL
    for _ in range(num_scenes):
        scene = random_scene(rng)
        for family in Family:
            question = ask(rng, scene, family)
            if question is not None:
                yield question.text
                yield question.answer


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> SlowFastConfig:
    """64-pixel frames of 8 × 8 cells, 16 visual tokens a frame, four decoder layers of which two are hybrid."""
    return SlowFastConfig(
        vision_config=SlowFastVisionConfig(image_size=IMAGE_SIZE, depths=(2, 2), dims=(32, 96)),
        text_config=small_decoder(tokenizer, WIDTH, num_layers=4, max_positions=MODEL_MAX_LENGTH),
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
