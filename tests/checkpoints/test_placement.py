"""Which GPU each layer goes to, by the memory that is free on them; no GPU is needed to know."""

import pytest
import torch

from sfvqa.checkpoints.device import place, spread_over
from sfvqa.checkpoints.plan import config_of
from sfvqa.errors import OutOfMemoryError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.loading import ModelBuilder, build_empty
from sfvqa.model.quantization import Quantization, quantizer_for
from sfvqa.registry import find_model

GB = 10**9


def device_map(name: str, quantization: Quantization, *free: float) -> dict[str, torch.device]:
    model = build_empty(SlowFastForConditionalGeneration, config_of(find_model(name)))
    placement = spread_over({index: int(size * GB) for index, size in enumerate(free)}, torch.bfloat16, quantization)
    return dict(ModelBuilder(model, torch.bfloat16, placement, quantizer_for(quantization)).device_map)


def test_a_model_that_fits_stays_on_one_gpu() -> None:
    """Handing every token from card to card makes nothing faster."""
    assert device_map("slowfast-7b", Quantization.NONE, 48, 48) == {"": torch.device("cuda", 0)}


def test_quantized_layers_count_with_their_bits() -> None:
    """Seventeen gigabytes do not fit a card of 24 with what they need beside them; seven do."""
    assert len(set(device_map("slowfast-7b", Quantization.NONE, 24, 24).values())) == 2
    assert set(device_map("slowfast-7b", Quantization.FOUR_BIT, 24, 24).values()) == {torch.device("cuda", 0)}


@pytest.mark.parametrize("num_gpus", [2, 3, 4])
def test_layers_are_spread_evenly_and_never_split(num_gpus: int) -> None:
    found = device_map("slowfast-7b", Quantization.NONE, *[12] * num_gpus)
    assert {device.index for device in found.values()} == set(range(num_gpus))
    inside_a_layer = [name for name in found if name.startswith("language_model.layers.") and name.count(".") > 2]
    assert inside_a_layer == []
    model = build_empty(SlowFastForConditionalGeneration, config_of(find_model("slowfast-7b")))
    builder = ModelBuilder(model, torch.bfloat16, found)
    sizes = [0] * num_gpus
    for name, parameter in model.named_parameters():
        sizes[builder.device_of(name).index] += 2 * parameter.numel()
    assert max(sizes) < 12 * GB
    assert min(sizes) > 0.4 * max(sizes)


def test_tied_weights_stay_together() -> None:
    found = device_map("bench-0.5b", Quantization.NONE, 0.8, 0.8)
    model = build_empty(SlowFastForConditionalGeneration, config_of(find_model("bench-0.5b")))
    builder = ModelBuilder(model, torch.bfloat16, found)
    assert builder.device_of("lm_head.weight") == builder.device_of("language_model.embed_tokens.weight")


def test_too_little_memory_in_all_is_said() -> None:
    with pytest.raises(OutOfMemoryError, match="4 GPUs"):
        device_map("slowfast-7b", Quantization.NONE, 2, 2, 2, 2)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_one_device_is_one_device(name: str) -> None:
    assert place(name, torch.device("cpu"), torch.float32, Quantization.NONE) == torch.device("cpu")
