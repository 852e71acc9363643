"""models.toml → ModelSpec: which models have a name, and what is known of them beforehand. Imports no torch."""

from sfvqa.registry.architecture import Architecture
from sfvqa.registry.registry import Registry, find_model, load_registry, read_registry, user_models_path
from sfvqa.registry.spec import FastTokens, ModelSpec, QuantizationName

__all__ = [
    "Architecture",
    "FastTokens",
    "ModelSpec",
    "QuantizationName",
    "Registry",
    "find_model",
    "load_registry",
    "read_registry",
    "user_models_path",
]
