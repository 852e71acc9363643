"""Which GPU each layer goes to, by the memory that is free on them; no GPU is needed to know."""

import pytest
import torch

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.memory import MemoryEstimate, RunSize, estimate_memory
from sfvqa.checkpoints.placement import place, spread_over
from sfvqa.checkpoints.plan import Plan, config_of, make_plan
from sfvqa.errors import OutOfMemoryError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.loading import ModelBuilder, build_empty
from sfvqa.model.quantization import Quantization, quantizable_linears, quantizer_for
from sfvqa.registry import QuantizationName, find_model
from tests.fake_gpus import pretend_gpus

GB = 10**9


def estimate(name: str, quantization: Quantization = Quantization.NONE) -> MemoryEstimate:
    spec = find_model(name)
    run = RunSize(spec.num_frames, "bfloat16", "cuda", QuantizationName(quantization.value))
    return estimate_memory(spec.architecture, spec.fast_tokens, run)


def device_map(name: str, quantization: Quantization, *free: float) -> dict[str, torch.device]:
    model = build_empty(SlowFastForConditionalGeneration, config_of(find_model(name)))
    free_bytes = {index: int(size * GB) for index, size in enumerate(free)}
    placement = spread_over(free_bytes, torch.bfloat16, quantization, estimate(name, quantization))
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
    found = device_map("bench-0.5b", Quantization.NONE, 1.2, 1.2)
    model = build_empty(SlowFastForConditionalGeneration, config_of(find_model("bench-0.5b")))
    builder = ModelBuilder(model, torch.bfloat16, found)
    assert builder.device_of("lm_head.weight") == builder.device_of("language_model.embed_tokens.weight")


def test_too_little_memory_in_all_is_said() -> None:
    with pytest.raises(OutOfMemoryError, match="4 GPUs"):
        device_map("slowfast-7b", Quantization.NONE, 2, 2, 2, 2)


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_one_device_is_one_device(name: str) -> None:
    cpu = torch.device("cpu")
    assert place(name, cpu, torch.float32, Quantization.NONE, estimate("tiny")) == cpu


def planned(monkeypatch: pytest.MonkeyPatch, *free: float, device: str = "auto", quantization: str = "auto") -> Plan:
    pretend_gpus(monkeypatch, *(size * GB for size in free))
    sizes = read_sizes("slowfast-7b-64f")
    return make_plan(ModelSettings(sizes.name, device, quantization=quantization), sizes)


@pytest.mark.parametrize(
    ("free", "device", "chosen"),
    [
        ((12,), "auto", "4bit"),
        ((12, 12), "cuda:0", "4bit"),
        ((12, 12), "auto", "none"),
        ((12, 12), "cuda:1", "4bit"),
        ((10, 10), "auto", "4bit"),
        ((6, 6), "auto", "4bit"),
        ((8, 8, 8, 8), "auto", "none"),
    ],
)
def test_several_gpus_are_planned_by_the_memory_of_all(
    monkeypatch: pytest.MonkeyPatch, free: tuple[float, ...], device: str, chosen: str
) -> None:
    """The first's alone was planned with, and the model quantized where two had room for all of it."""
    made = planned(monkeypatch, *free, device=device)
    assert (made.run.quantization, made.fit.fits) == (chosen, True)
    assert made.check() == ()


@pytest.mark.parametrize("quantization", [Quantization.NONE, Quantization.FOUR_BIT])
def test_what_is_planned_to_fit_is_placed_with_room_to_compute(
    monkeypatch: pytest.MonkeyPatch, quantization: Quantization
) -> None:
    needed, spec = estimate("slowfast-7b-64f", quantization), find_model("slowfast-7b-64f")
    model = build_empty(SlowFastForConditionalGeneration, config_of(spec))
    quantized = {f"{name}.weight" for name in quantizable_linears(model)}
    num_fitting = 0
    for shares in ((1, 1), (1, 2), (3, 1), (1, 1, 1), (4, 1, 2), (1, 1, 1, 1)):
        for times in (1.0, 1.2, 1.4, 1.6, 1.8, 2.2):
            free = [times * needed.needed_bytes * share / sum(shares) / GB for share in shares]
            if not planned(monkeypatch, *free, quantization=quantization.value).fit.fits:
                continue
            num_fitting += 1
            free_bytes = {index: int(size * GB) for index, size in enumerate(free)}
            placement = spread_over(free_bytes, torch.bfloat16, quantization, needed)
            assert callable(placement)
            builder = ModelBuilder(model, torch.bfloat16, placement)
            if len(set(builder.device_map.values())) == 1:
                continue
            for name, parameter in model.named_parameters():
                is_quantized = quantization is Quantization.FOUR_BIT and name in quantized
                index = builder.device_of(name).index
                free_bytes[index] -= int(parameter.numel() * (0.52 if is_quantized else 2))
            assert min(free_bytes.values()) >= needed.unspread_bytes
    assert num_fitting > 10
