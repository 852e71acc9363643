"""models.toml → ModelSpec: the named models and what is known about them. Imports no torch."""

from sfvqa.registry.architecture import Architecture, FastTokens
from sfvqa.registry.registry import (
    BUNDLED_MODEL,
    SUGGESTED_MODEL,
    CropName,
    ModelSpec,
    QuantizationName,
    SamplingName,
    find_model,
    load_registry,
    read_registry,
    user_models_path,
)

__all__ = [
    "BUNDLED_MODEL",
    "SUGGESTED_MODEL",
    "Architecture",
    "CropName",
    "FastTokens",
    "ModelSpec",
    "QuantizationName",
    "SamplingName",
    "find_model",
    "load_registry",
    "read_registry",
    "user_models_path",
]
