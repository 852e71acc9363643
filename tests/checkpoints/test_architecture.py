"""models.toml and the checkpoints say the same, in both directions, down to the number of parameters."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, LlavaOnevisionConfig, SmolVLMConfig

from sfvqa.checkpoints.find import locate
from sfvqa.checkpoints.plan import architecture_of, config_of, fast_tokens_of
from sfvqa.model import SlowFastForConditionalGeneration, read_config
from sfvqa.registry import ModelSpec, find_model, load_registry
from tests.model.families.published import FAMILIES, make, save

MANIFEST = Path(__file__).parent.parent / "golden" / "full_manifest.json"


@pytest.mark.parametrize("spec", list(load_registry()), ids=lambda spec: spec.name)
def test_every_part_has_as_many_parameters_as_computed(spec: ModelSpec) -> None:
    with torch.device("meta"):
        model = SlowFastForConditionalGeneration(config_of(spec))
    sizes = spec.architecture
    assert sum(weight.numel() for weight in model.parameters()) == sizes.num_parameters
    assert sum(weight.numel() for weight in model.vision_tower.parameters()) == sizes.num_vision_parameters
    assert sum(weight.numel() for weight in model.projector.parameters()) == sizes.num_projector_parameters
    slow = [weight for name, weight in model.named_parameters() if ".slow_attention." in name]
    assert sum(weight.numel() for weight in slow) == sizes.num_slow_attention_parameters


@pytest.mark.parametrize("spec", list(load_registry()), ids=lambda spec: spec.name)
def test_a_config_gives_its_architecture_back(spec: ModelSpec) -> None:
    config = config_of(spec)
    assert (architecture_of(config), fast_tokens_of(config)) == (spec.architecture, spec.fast_tokens)


def test_the_registry_describes_the_bundled_checkpoint() -> None:
    config, tiny = read_config(locate("tiny").folder), find_model("tiny")
    assert (architecture_of(config), fast_tokens_of(config)) == (tiny.architecture, tiny.fast_tokens)
    assert (config.training_num_frames, config.training_max_length) == (tiny.num_frames, tiny.training_max_length)


def test_the_published_models_are_of_the_published_size() -> None:
    """The checkpoints hold a classification head that nothing computes with; all else is counted."""
    tensors = json.loads(MANIFEST.read_text())["tensors"]
    sizes = {name: math.prod(shape) for name, (shape, _) in tensors.items()}
    counted = sum(size for name, size in sizes.items() if ".vision_tower.head." not in name)
    for name in ("slowfast-7b-64f", "slowfast-7b-96f", "slowfast-7b-128f"):
        spec = find_model(name)
        assert spec.architecture.num_parameters == counted
        assert spec.size_bytes == 2 * sum(sizes.values())


_SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 384,
}
_SMALL_SIGLIP = {
    **{"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    **{"patch_size": 16, "image_size": 512},
}


def _decoder(width: int, inner: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        **{"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers, "vocab_size": vocabulary},
        **{"num_attention_heads": heads, "num_key_value_heads": kv_heads},
    }


def _llava(decoder: dict[str, Any], *, tied: bool) -> LlavaOnevisionConfig:
    vision = _SO400M | {"model_type": "siglip_vision_model", "num_hidden_layers": 26, "vision_use_head": False}
    text = decoder | {"model_type": "qwen2", "tie_word_embeddings": tied}
    return LlavaOnevisionConfig(vision_config=vision, text_config=text, tie_word_embeddings=tied)


def _smolvlm(vision: dict[str, Any], decoder: dict[str, Any], scale_factor: int) -> SmolVLMConfig:
    text = decoder | {"model_type": "llama", "pad_token_id": 0}
    return SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=scale_factor, tie_word_embeddings=False)


PUBLISHED = {
    "llava-onevision-0.5b": (_llava(_decoder(896, 4864, 24, 14, 2, 152_000), tied=True), 893_675_552, 2),
    "llava-onevision-7b": (_llava(_decoder(3584, 18_944, 28, 28, 4, 152_128), tied=False), 8_030_807_584, 2),
    "smolvlm2-256m": (_smolvlm(_SMALL_SIGLIP, _decoder(576, 1536, 30, 9, 3, 49_280), 4), 256_484_928, 4),
    "smolvlm2-500m": (_smolvlm(_SMALL_SIGLIP, _decoder(960, 2560, 32, 15, 5, 49_280), 4), 507_482_304, 4),
    "smolvlm2-2.2b": (
        _smolvlm(_SO400M | {"num_hidden_layers": 27}, _decoder(2048, 8192, 24, 32, 32, 49_280), 3),
        2_246_784_880,
        4,
    ),
}
"""As transformers describes them, with the number of their parameters and the bytes that each has in their files."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_tensor_of_an_open_model_is_one_of_transformers_own(name: str) -> None:
    published, num_parameters, item_bytes = PUBLISHED[name]
    spec = find_model(name)
    assert spec.architecture.num_parameters == num_parameters
    assert spec.size_bytes == num_parameters * item_bytes
    config = config_of(spec)
    with torch.device("meta"):
        theirs, ours = AutoModelForImageTextToText.from_config(published), SlowFastForConditionalGeneration(config)
    assert shapes(ours) == {
        config.family.rename_tensor(tensor_name): shape for tensor_name, shape in shapes(theirs).items()
    }


def shapes(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Of all tensors by their names, each that is tied once."""
    return {name: tuple(tensor.shape) for name, tensor in model.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_another_family_has_as_many_parameters_as_computed(family: str, tmp_path: Path) -> None:
    folder = save(make(family), tmp_path / family)
    config = read_config(folder)
    sizes, model = architecture_of(config), SlowFastForConditionalGeneration.from_pretrained(folder)
    assert sum(weight.numel() for weight in model.vision_tower.parameters()) == sizes.num_vision_parameters
    assert sum(weight.numel() for weight in model.projector.parameters()) == sizes.num_projector_parameters
    assert sum(weight.numel() for weight in model.parameters()) == sizes.num_parameters
    assert sizes.num_visual_tokens(5) == len(model.encode_video(torch.zeros(5, 3, *[sizes.image_size] * 2)).slow)
