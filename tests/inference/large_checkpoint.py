"""A checkpoint of more than 2 GB in the published form, written shard by shard: reference names, an index."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from sfvqa.checkpoints.plan import config_of
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.registry import find_model
from tests.inference.small_checkpoint import byte_level_tokenizer, reference_name

SHARD_BYTES = 400_000_000


def write_large_checkpoint(folder: Path) -> Path:
    """bench-0.5b in float32, with values that neither compress nor repeat."""
    folder.mkdir(parents=True)
    config = config_of(find_model("bench-0.5b"))
    with torch.device("meta"):
        shapes = {
            name: parameter.shape for name, parameter in SlowFastForConditionalGeneration(config).named_parameters()
        }
    generator = torch.Generator().manual_seed(0)
    weight_map: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}

    def flush() -> None:
        file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, shape in shapes.items():
        if shard and sum(tensor.nbytes for tensor in shard.values()) + 4 * shape.numel() > SHARD_BYTES:
            flush()
        shard[reference_name(name)] = torch.randn(shape, generator=generator) * 0.02
    flush()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    config.dtype = torch.float32
    config.save_pretrained(folder)
    _write_reference_config(folder)
    byte_level_tokenizer().save_pretrained(folder)
    return folder


def _write_reference_config(folder: Path) -> None:
    ours = json.loads((folder / "config.json").read_text())
    decoder, tower = ours["text_config"], ours["vision_config"]
    fields = {
        **{name: value for name, value in decoder.items() if name not in ("model_type", "dtype", "layer_types")},
        "model_type": "llava_qwen_slow_fast",
        "_tiny_vision": {
            **{name: tower[name] for name in ("image_size", "depths", "dims")},
            "norm_eps": tower["layer_norm_eps"],
        },
        "mm_vision_tower": "convnext-576",
        "mm_projector_type": "mlp2x_gelu",
        "mm_video_pooling_stride": ours["video_pooling_stride"],
        "cross_attn_every_n_layers": 8,
        "cross_attn_implementation": "text-only-vanilla-flashattn",
        "cross_attn_gating_type": "whole-dynamic-tanh-warmup",
        "fast_token_temporal_stride": ours["temporal_stride"],
        "min_fast_frames": ours["min_fast_frames"],
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(fields))
