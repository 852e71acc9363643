"""Reads the published reference's checkpoint format: its config fields and its tensor names, and nothing else of it.

Strict about every field that changes the mathematics, silent about those nothing reads.
"""

import dataclasses
import re
from typing import Any

from transformers import Qwen2Config

from sfvqa.errors import CheckpointError
from sfvqa.model.config import Gating, SlowAttentionScope, SlowFastConfig, SlowFastVisionConfig

REFERENCE_MODEL_TYPE = "llava_qwen_slow_fast"

VISION_TOWERS = {
    # timm's convnext_xxlarge at 576 px, the only tower the reference published.
    "convnext-576": {"image_size": 576, "depths": (3, 4, 30, 3), "dims": (384, 768, 1536, 3072)},
}

SCOPES = {
    "text-only-vanilla-flashattn": SlowAttentionScope.TEXT,
    "text-only-vanilla-masksystem-flashattn": SlowAttentionScope.TEXT_AFTER_VIDEO,
    "vanilla-flashattn": SlowAttentionScope.ALL,
}

GATINGS = {"whole-dynamic-tanh-warmup": Gating.DYNAMIC_WARM_UP}

TENSOR_NAMES = (
    # The layer scale is published as `weight`; timm and we call it `gamma`. Both are read.
    (r"^model\.vision_tower\.vision_tower\.(stages\.\d+\.blocks\.\d+)\.weight", r"vision_tower.\1.gamma"),
    (r"^model\.vision_tower\.vision_tower\.", r"vision_tower."),
    (r"^model\.mm_projector\.0\.", r"projector.fc1."),
    (r"^model\.mm_projector\.2\.", r"projector.fc2."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_kv_proj\.", r"language_model.\1.slow_attention.kv_proj."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_gate_proj\.0\.", r"language_model.\1.slow_attention.gate_proj."),
    (r"^model\.(layers\.\d+\.self_attn)\.cross_attn_warm_up_gate", r"language_model.\1.slow_attention.warm_up_gate"),
    (r"^model\.(embed_tokens|layers|norm)\.", r"language_model.\1."),
)
"""Patterns of the reference's tensor names and what we call them; the first that matches a name applies."""

UNUSED_TENSORS = (r"^vision_tower\.head\.",)
"""Ours after renaming: the classification head that the checkpoint carries and nothing computes with."""


def rename_tensor(name: str) -> str:
    """Our name of one of the reference's tensors.

    >>> rename_tensor("model.mm_projector.2.bias")
    'projector.fc2.bias'
    """
    for pattern, replacement in TENSOR_NAMES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return renamed
    return name


def is_reference_config(fields: dict[str, Any]) -> bool:
    """Whether a config.json was written by the reference."""
    return fields.get("model_type") == REFERENCE_MODEL_TYPE


def read_reference_config(fields: dict[str, Any]) -> SlowFastConfig:
    """Translate the fields of the reference's config.json; raises CheckpointError on what we cannot compute."""
    _expect(fields, "mm_projector_type", "mlp2x_gelu")
    _expect(fields, "mm_patch_merge_type", "flat", default="flat")
    _expect(fields, "mm_use_im_start_end", False, default=False)
    decoder = _decoder_config(fields)
    num_layers = decoder.num_hidden_layers
    max_depth = fields.get("cross_attn_max_layer_depth")
    return SlowFastConfig(
        vision_config=_vision_config(fields),
        text_config=decoder,
        video_pooling_stride=_read(fields, "mm_video_pooling_stride"),
        temporal_stride=_read(fields, "fast_token_temporal_stride"),
        temporal_sampling_stride=fields.get("fast_token_temporal_sampling_stride", 1),
        spatial_stride=fields.get("fast_token_spatial_stride", 1),
        min_fast_frames=fields.get("min_fast_frames") or 1,
        hybrid_layers=tuple(
            range(
                fields.get("cross_attn_min_layer_depth") or 0,
                num_layers if max_depth is None else max_depth,
                _read(fields, "cross_attn_every_n_layers"),
            )
        ),
        slow_attention_scope=_choose(fields, "cross_attn_implementation", SCOPES),
        gating=_choose(fields, "cross_attn_gating_type", GATINGS),
        training_num_frames=fields.get("mm_training_video_frames"),
        training_max_length=fields.get("tokenizer_model_max_length"),
        dtype=fields.get("torch_dtype") or fields.get("dtype"),
        architectures=["SlowFastForConditionalGeneration"],
    )


def _decoder_config(fields: dict[str, Any]) -> Qwen2Config:
    names = {field.name for field in dataclasses.fields(Qwen2Config)} | {"rope_theta", "rope_scaling"}
    names -= {"model_type", "architectures", "transformers_version", "dtype", "torch_dtype", "layer_types"}
    for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        _read(fields, name)
    return Qwen2Config(**{name: fields[name] for name in names if name in fields})


def _vision_config(fields: dict[str, Any]) -> SlowFastVisionConfig:
    # Checkpoints made with the reference at small scale spell out the tower they used in place of the one they name.
    if (spelled_out := fields.get("_tiny_vision")) is not None:
        return SlowFastVisionConfig(
            image_size=spelled_out["image_size"],
            depths=spelled_out["depths"],
            dims=spelled_out["dims"],
            layer_norm_eps=spelled_out["norm_eps"],
        )
    tower = SlowFastVisionConfig(**_choose(fields, "mm_vision_tower", VISION_TOWERS))
    _expect(fields, "mm_hidden_size", tower.dims[-1], default=tower.dims[-1])
    return tower


def _read(fields: dict[str, Any], name: str) -> Any:
    if fields.get(name) is None:
        raise CheckpointError(f"The checkpoint's config.json has no {name}.", "Fetch the checkpoint again.")
    return fields[name]


def _expect(fields: dict[str, Any], name: str, value: object, default: object = None) -> None:
    found = fields.get(name, default)
    if found != value:
        raise CheckpointError(f"The checkpoint's {name} is {found!r}; only {value!r} is supported.")


def _choose(fields: dict[str, Any], name: str, choices: dict[str, Any]) -> Any:
    value = _read(fields, name)
    if value not in choices:
        known = ", ".join(choices)
        raise CheckpointError(f"The checkpoint's {name} {value!r} is unknown.", f"Supported: {known}.")
    return choices[value]
