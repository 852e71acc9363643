"""Small random checkpoints of other video models, saved by transformers' own classes as these are published."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

FAMILIES = ("llava_onevision", "smolvlm")
VIDEO_TOKEN_ID = 291
"""Of both; SmolVLM calls it the image's."""
_TEXT = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 8192,
}
_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}


def make(family: str, *, tied: bool = False) -> PreTrainedModel:
    """A small model of a family with random weights, of other random weights than their first values."""
    torch.manual_seed(0)
    model: PreTrainedModel
    if family == "llava_onevision":
        vision: dict[str, Any] = _VISION | {"patch_size": 14, "image_size": 70, "vision_use_head": False}
        model = LlavaOnevisionForConditionalGeneration(
            LlavaOnevisionConfig(
                vision_config=vision | {"model_type": "siglip_vision_model"},
                text_config=_TEXT | {"model_type": "qwen2", "tie_word_embeddings": tied},
                image_token_index=290,
                video_token_index=VIDEO_TOKEN_ID,
                tie_word_embeddings=tied,
            )
        )
    else:
        model = SmolVLMForConditionalGeneration(
            SmolVLMConfig(
                vision_config=_VISION | {"patch_size": 16, "image_size": 64},
                text_config=_TEXT | {"model_type": "llama", "pad_token_id": 0, "tie_word_embeddings": tied},
                scale_factor=2,
                image_token_id=VIDEO_TOKEN_ID,
                tie_word_embeddings=tied,
            )
        )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def save(model: PreTrainedModel, folder: Path, *, sharded: bool = False, old_names: bool = True) -> Path:
    """Its folder, without a tokenizer."""
    size = "60KB" if sharded else "5GB"
    model.save_pretrained(folder, max_shard_size=size, save_original_format=old_names)
    return folder


def logits_of(model: PreTrainedModel, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """What transformers computes of a prompt `[1, L]` with the pixels `[T, 3, S, S]` of its video."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, **_video(model, pixels)).logits
    return logits


def greedy_of(model: PreTrainedModel, ids: torch.Tensor, pixels: torch.Tensor, num_tokens: int) -> list[int]:
    """The tokens that transformers' `generate` writes after a prompt `[1, L]`."""
    written = model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_tokens,
        eos_token_id=None,
        pad_token_id=0,
        **_video(model, pixels),
    )
    return list(map(int, written[0, ids.shape[1] :]))


def _video(model: PreTrainedModel, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    name = "pixel_values_videos" if isinstance(model, LlavaOnevisionForConditionalGeneration) else "pixel_values"
    return {name: pixels[None]}
