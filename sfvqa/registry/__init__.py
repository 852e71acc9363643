"""models.toml → ModelSpec: the named models and what is known about them. Imports no torch."""

from sfvqa.registry.architecture import Architecture, FastTokens
from sfvqa.registry.registry import (
    BUNDLED_MODEL,
    SUGGESTED_MODEL,
    SUGGESTED_SPEECH_MODEL,
    CropName,
    ModelSpec,
    PublishedModel,
    QuantizationName,
    SamplingName,
    SpeechSpec,
    find_any_model,
    find_model,
    load_registry,
    read_registry,
    user_models_path,
)

__all__ = [
    "BUNDLED_MODEL",
    "SUGGESTED_MODEL",
    "SUGGESTED_SPEECH_MODEL",
    "Architecture",
    "CropName",
    "FastTokens",
    "ModelSpec",
    "PublishedModel",
    "QuantizationName",
    "SamplingName",
    "SpeechSpec",
    "find_any_model",
    "find_model",
    "load_registry",
    "read_registry",
    "user_models_path",
]
