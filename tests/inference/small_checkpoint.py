"""Checkpoint folders with random weights and a byte-level tokenizer, in our format and in the reference's."""

import json
import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration

# As published with Qwen2-7B-Instruct; written out here so that the test does not lean on the code it tests.
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY_SIZE = 272
REFERENCE_NAMES = (
    (r"^vision_tower\.(stages\.\d+\.blocks\.\d+)\.gamma$", r"model.vision_tower.vision_tower.\1.weight"),
    (r"^vision_tower\.", "model.vision_tower.vision_tower."),
    (r"^projector\.fc1\.", "model.mm_projector.0."),
    (r"^projector\.fc2\.", "model.mm_projector.2."),
    (r"^language_model\.(.*)\.slow_attention\.kv_proj\.", r"model.\1.cross_attn_kv_proj."),
    (r"^language_model\.(.*)\.slow_attention\.gate_proj\.", r"model.\1.cross_attn_gate_proj.0."),
    (r"^language_model\.(.*)\.slow_attention\.warm_up_gate$", r"model.\1.cross_attn_warm_up_gate"),
    (r"^language_model\.", "model."),
)


def byte_level_tokenizer(chat_template: str | None = QWEN2_TEMPLATE) -> PreTrainedTokenizerFast:
    """A token a byte, and Qwen2's special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: place for place, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL_TOKENS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = chat_template
    return fast


def small_config() -> SlowFastConfig:
    """Two hybrid layers of four, four tokens a frame, 32 px; long enough for every test but the one on length."""
    return SlowFastConfig(
        vision_config={"image_size": 32, "depths": [1, 1], "dims": [8, 16]},
        text_config={
            "model_type": "qwen2",
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 640,
            "tie_word_embeddings": False,
        },
        video_pooling_stride=2,
        temporal_stride=2,
        min_fast_frames=2,
        hybrid_layers=(0, 2),
        training_num_frames=8,
        training_max_length=512,
    )


def small_model() -> SlowFastForConditionalGeneration:
    """Weights large enough, and gates open enough, that frames, slow tokens and words all change what is said."""
    generator = torch.Generator().manual_seed(0)
    model = SlowFastForConditionalGeneration(small_config())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "gate" in name:
                parameter.normal_(std=0.8 if "gate" in name or "lm_head" in name else 0.25, generator=generator)
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):
                parameter.fill_(0.5)
    return model


def write_checkpoint(folder: Path) -> Path:
    """Our own format."""
    small_model().save_pretrained(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return folder


def write_reference_checkpoint(folder: Path, ours: Path) -> Path:
    """The same weights in the reference's format: its config fields, its tensor names."""
    folder.mkdir()
    tensors = {reference_name(name): tensor for name, tensor in load_file(ours / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = small_config()
    decoder = config.decoder_config.to_dict()
    fields = {
        **{name: decoder[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")},
        **{name: decoder[name] for name in ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")},
        "model_type": "llava_qwen_slow_fast",
        "_tiny_vision": {"image_size": 32, "depths": [1, 1], "dims": [8, 16], "norm_eps": 1e-5},
        "mm_vision_tower": "convnext-576",
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_video_pooling_stride": 2,
        "cross_attn_every_n_layers": 2,
        "cross_attn_min_layer_depth": 0,
        "cross_attn_max_layer_depth": 4,
        "cross_attn_implementation": "text-only-vanilla-flashattn",
        "cross_attn_gating_type": "whole-dynamic-tanh-warmup",
        "fast_token_temporal_stride": 2,
        "fast_token_temporal_sampling_stride": 1,
        "fast_token_spatial_stride": 1,
        "min_fast_frames": 2,
        "mm_training_video_frames": 8,
        "tokenizer_model_max_length": 512,
        "torch_dtype": "float32",
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(fields))
    byte_level_tokenizer().save_pretrained(folder)
    return folder


def reference_name(name: str) -> str:
    """What the reference calls one of our tensors."""
    for pattern, replacement in REFERENCE_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name
