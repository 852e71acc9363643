"""Qwen2 with some hybrid layers; everything else is transformers' own."""

from transformers import Qwen2Config, Qwen2Model
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention, Qwen2DecoderLayer

from sfvqa.model.config import Gating, SlowAttentionScope, SlowFastConfig
from sfvqa.model.hybrid_layer import GatedSlowAttention, HybridAttentionMixin, HybridLayerMixin


class HybridQwen2Attention(HybridAttentionMixin, Qwen2Attention):
    """Qwen2's self-attention with slow attention."""

    def __init__(self, config: Qwen2Config, layer_idx: int, *, squash_warm_up: bool, gating: Gating | str) -> None:
        super().__init__(config, layer_idx)
        self.slow_attention = GatedSlowAttention(
            config, layer_idx, self.head_dim, squash_warm_up=squash_warm_up, gating=gating
        )


class HybridQwen2DecoderLayer(HybridLayerMixin, Qwen2DecoderLayer):
    """Qwen2's decoder layer with slow attention."""

    def __init__(self, config: Qwen2Config, layer_idx: int, *, squash_warm_up: bool, gating: Gating | str) -> None:
        super().__init__(config, layer_idx)
        self.self_attn = HybridQwen2Attention(config, layer_idx, squash_warm_up=squash_warm_up, gating=gating)


class HybridQwen2Model(Qwen2Model):
    """Qwen2's decoder whose `hybrid_layers` also attend to slow tokens."""

    _no_split_modules = ["Qwen2DecoderLayer", "HybridQwen2DecoderLayer"]  # noqa: RUF012 - transformers' own convention

    def __init__(self, config: SlowFastConfig) -> None:
        decoder = config.decoder_config
        assert isinstance(decoder, Qwen2Config)
        super().__init__(decoder)
        squash_warm_up = config.slow_attention_scope is not SlowAttentionScope.ALL
        for layer_idx in config.hybrid_layers:
            self.layers[layer_idx] = HybridQwen2DecoderLayer(
                decoder, layer_idx, squash_warm_up=squash_warm_up, gating=config.gating
            )
        self.post_init()  # type: ignore[no-untyped-call]
