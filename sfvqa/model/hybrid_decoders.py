"""Decoder families of transformers with some hybrid layers; everything else of them is transformers' own.

A further family is a line in `FAMILIES`, if its attention fits HybridAttentionMixin.
"""

import importlib
from functools import cache
from typing import Any

from sfvqa.errors import CheckpointError
from sfvqa.model.config import SlowAttentionScope, SlowFastConfig
from sfvqa.model.hybrid_layer import HybridAttentionMixin, HybridLayerMixin

FAMILIES = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
"""By transformers' model type, how the names of a family's classes begin."""


class HybridModelMixin:
    """A family's decoder whose `hybrid_layers` also attend to slow tokens; put before the family's model."""

    layer_class: type[Any]

    def __init__(self: Any, config: SlowFastConfig) -> None:
        decoder = config.decoder_config
        super().__init__(decoder)  # type: ignore[call-arg]
        squash_warm_up = config.slow_attention_scope is not SlowAttentionScope.ALL
        for layer_idx in config.hybrid_layers:
            self.layers[layer_idx] = self.layer_class(
                decoder, layer_idx, squash_warm_up=squash_warm_up, gating=config.gating
            )
        self.post_init()


@cache
def hybrid_decoder(model_type: str) -> type[Any]:
    """The hybrid model of a family, made of its attention, layer and model; CheckpointError for an unknown one."""
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"Decoders of type {model_type!r} have no hybrid layers.", f"Known: {', '.join(sorted(FAMILIES))}."
        )
    family = FAMILIES[model_type]
    module = importlib.import_module(f"transformers.models.{model_type}.modeling_{model_type}")
    plain_attention, plain_layer, plain_model = (
        getattr(module, f"{family}{part}") for part in ("Attention", "DecoderLayer", "Model")
    )
    attention = type(f"Hybrid{family}Attention", (HybridAttentionMixin, plain_attention), {})
    layer = type(f"Hybrid{family}DecoderLayer", (HybridLayerMixin, plain_layer), {"attention_class": attention})
    own = {"layer_class": layer, "_no_split_modules": [plain_layer.__name__, layer.__name__]}
    return type(f"Hybrid{family}Model", (HybridModelMixin, plain_model), own)
