"""The network: frames → slow and fast tokens → logits. Knows nothing of files, prompts or terminals."""

from transformers import AutoConfig, AutoModelForImageTextToText

from sfvqa.model import block_attention
from sfvqa.model.config import (
    IMAGE_TOKEN_ID,
    Gating,
    SlowAttentionScope,
    SlowFastConfig,
    read_config,
)
from sfvqa.model.decode_step import DecodeStep, RecordedSteps, decoding_kernels
from sfvqa.model.kv_cache import SlowFastCache
from sfvqa.model.quantization import read_quantization
from sfvqa.model.slow_fast import SlowAttention, SlowFastForConditionalGeneration
from sfvqa.model.visual_tokens import VisualTokens, num_frames_outside_fast_path

block_attention.register()
AutoConfig.register(SlowFastConfig.model_type, SlowFastConfig, exist_ok=True)
AutoModelForImageTextToText.register(SlowFastConfig, SlowFastForConditionalGeneration, exist_ok=True)

__all__ = [
    "IMAGE_TOKEN_ID",
    "DecodeStep",
    "Gating",
    "RecordedSteps",
    "SlowAttention",
    "SlowAttentionScope",
    "SlowFastCache",
    "SlowFastConfig",
    "SlowFastForConditionalGeneration",
    "VisualTokens",
    "decoding_kernels",
    "num_frames_outside_fast_path",
    "read_config",
    "read_quantization",
]
