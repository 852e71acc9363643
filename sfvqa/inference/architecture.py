"""An Architecture of models.toml ↔ the config of the network it describes."""

from typing import Any

from transformers import Qwen2Config

from sfvqa.model import SlowFastConfig
from sfvqa.registry import Architecture, FastTokens, ModelSpec


def config_of(spec: ModelSpec) -> SlowFastConfig:
    """The config of a registered model, from models.toml alone: what its checkpoint's config.json says as well."""
    sizes, fast = spec.architecture, spec.fast_tokens
    return SlowFastConfig(
        vision_config={
            "image_size": sizes.image_size,
            "depths": sizes.vision_depths,
            "dims": sizes.vision_dims,
        },
        text_config=Qwen2Config(
            vocab_size=sizes.vocab_size,
            hidden_size=sizes.hidden_size,
            intermediate_size=sizes.intermediate_size,
            num_hidden_layers=sizes.num_layers,
            num_attention_heads=sizes.num_attention_heads,
            num_key_value_heads=sizes.num_key_value_heads,
            max_position_embeddings=sizes.max_position_embeddings,
            rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
            tie_word_embeddings=sizes.tie_word_embeddings,
        ),
        video_pooling_stride=sizes.video_pooling_stride,
        temporal_stride=fast.temporal_stride,
        temporal_sampling_stride=fast.temporal_sampling_stride,
        spatial_stride=fast.spatial_stride,
        min_fast_frames=fast.min_fast_frames,
        hybrid_layers=sizes.hybrid_layers,
        slow_attention_scope=sizes.slow_attention_scope,
        gating=sizes.gating,
        training_num_frames=spec.num_frames,
        training_max_length=spec.training_max_length,
        dtype="bfloat16",
    )


def architecture_of(config: SlowFastConfig) -> Architecture:
    """The sizes of a network, from its config."""
    decoder: Any = config.decoder_config
    is_qwen2 = isinstance(decoder, Qwen2Config)
    has_biases = bool(getattr(decoder, "attention_bias", False))
    rope = decoder.rope_parameters
    assert isinstance(rope, dict)
    rope_theta = rope["rope_theta"]
    assert rope_theta is not None
    return Architecture(
        image_size=config.vision.image_size,
        vision_depths=tuple(config.vision.depths),
        vision_dims=tuple(config.vision.dims),
        video_pooling_stride=config.video_pooling_stride,
        hidden_size=decoder.hidden_size,
        intermediate_size=decoder.intermediate_size,
        num_layers=decoder.num_hidden_layers,
        num_attention_heads=decoder.num_attention_heads,
        num_key_value_heads=decoder.num_key_value_heads or decoder.num_attention_heads,
        vocab_size=decoder.vocab_size,
        max_position_embeddings=decoder.max_position_embeddings,
        rope_theta=float(rope_theta),
        tie_word_embeddings=bool(decoder.tie_word_embeddings),
        hybrid_layers=tuple(config.hybrid_layers),
        slow_attention_scope=str(config.slow_attention_scope),
        gating=str(config.gating),
        head_dim=getattr(decoder, "head_dim", None) or 0,
        has_qkv_biases=is_qwen2 or has_biases,
        has_output_bias=has_biases and not is_qwen2,
        has_query_key_norms=decoder.model_type == "qwen3",
    )


def fast_tokens_of(config: SlowFastConfig) -> FastTokens:
    """How a network averages its fast tokens, from its config."""
    return FastTokens(
        temporal_stride=config.temporal_stride,
        min_fast_frames=config.min_fast_frames,
        temporal_sampling_stride=config.temporal_sampling_stride,
        spatial_stride=config.spatial_stride,
    )
