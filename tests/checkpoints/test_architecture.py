"""models.toml and the checkpoints say the same, in both directions, down to the number of parameters."""

import json
import math
from pathlib import Path

import pytest
import torch

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
    for name in ("slowfast-7b-64f", "slowfast-7b-96f"):
        spec = find_model(name)
        assert spec.architecture.num_parameters == counted
        assert spec.size_bytes == 2 * sum(sizes.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_another_family_has_as_many_parameters_as_computed(family: str, tmp_path: Path) -> None:
    folder = save(make(family), tmp_path / family)
    config = read_config(folder)
    sizes, model = architecture_of(config), SlowFastForConditionalGeneration.from_pretrained(folder)
    assert sum(weight.numel() for weight in model.vision_tower.parameters()) == sizes.num_vision_parameters
    assert sum(weight.numel() for weight in model.projector.parameters()) == sizes.num_projector_parameters
    assert sum(weight.numel() for weight in model.parameters()) == sizes.num_parameters
    assert sizes.num_visual_tokens(5) == len(model.encode_video(torch.zeros(5, 3, *[sizes.image_size] * 2)).slow)
