"""A model whose layers are on different devices: every tensor arrives where the layer is that uses it.

`meta` stands for the second device. Whatever mixes it with the CPU fails, as mixing two GPUs would.
"""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from sfvqa.checkpoints.placement import spread_over
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization
from tests.model.conftest import ModelMaker, frames, left_padded, prompt
from tests.model.passes import decode, prefill


def split_between_devices(model: SlowFastForConditionalGeneration, first_moved: int) -> None:
    """Layers from `first_moved` on, and all behind them, go to the second device, as accelerate would spread them."""
    moved = [*model.language_model.layers[first_moved:], model.language_model.norm, model.lm_head]
    for module in moved:
        add_hook_to_module(module.to("meta"), AlignDevicesHook(execution_device="meta"))


@pytest.mark.parametrize("first_moved", [1, 2])
@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)], ids=["even", "ragged"])
def test_slow_tokens_follow_the_layers(make_model: ModelMaker, first_moved: int, lengths: tuple[int, int]) -> None:
    """accelerate's hooks move tensors, not what a hybrid layer is told in a dataclass."""
    model = make_model()
    with torch.inference_mode():
        samples = [model.encode_video(frames(length)) for length in lengths]
        ids, mask = left_padded([prompt(sample, [7, 8, 9][:count]) for count, sample in enumerate(samples, start=2)])
        split_between_devices(model, first_moved)
        logits, cache = prefill(model, ids, mask, samples)
        assert (logits.device.type, logits.shape) == ("meta", (2, 64))
        assert {index: cache.slow_layers[index][0].device.type for index in cache.slow_layers} == {
            0: "cpu",
            2: "meta",
        }
        longer = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
        assert decode(model, torch.tensor([[5], [6]]), longer, cache).device.type == "meta"


def test_prompts_are_made_elsewhere_than_the_embeddings(make_model: ModelMaker) -> None:
    """The vision tower's device is the prompt's; the embeddings may be on the next one."""
    model = make_model()
    with torch.inference_mode():
        sample = model.encode_video(frames(6))
        ids, _ = left_padded([prompt(sample, [7, 8])])
        embeddings = model.get_input_embeddings()
        add_hook_to_module(embeddings.to_empty(device="meta"), AlignDevicesHook(execution_device="meta"))
        assert model.embed(ids, [sample]).device.type == "meta"


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_a_model_loaded_onto_several_devices_answers_as_on_one(
    make_model: ModelMaker, tmp_path: Path, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cpu:0` is another name of the CPU: accelerate hands tensors over between the two as between GPUs."""
    monkeypatch.setattr("accelerate.utils.modeling.check_device_same", lambda *_devices: True)
    make_model().save_pretrained(tmp_path)
    devices = [torch.device("cpu"), torch.device("cpu:0")]

    def places(empty: Any) -> dict[str, torch.device]:
        size = sum(2 * weight.numel() for weight in empty.parameters())
        needed: Any = SimpleNamespace(weights_bytes=size, spread_bytes=size, unspread_bytes=0)
        placement: Any = spread_over({0: size // 2, 1: size}, torch.bfloat16, Quantization(quantization), needed)
        found = {name: devices[device.index] for name, device in placement(empty).items()}
        assert set(found.values()) == set(devices)
        return found

    load = partial(SlowFastForConditionalGeneration.from_pretrained, tmp_path, quantization=quantization)
    logits = []
    for placement in (None, places):
        model = load(device_map=placement)
        assert hasattr(model.language_model.layers[1], "_hf_hook") == (placement is not None)
        with torch.inference_mode():
            sample = model.encode_video(frames(6))
            ids, mask = left_padded([prompt(sample, [7, 8])])
            _, cache = prefill(model, ids, mask, [sample])
            longer = torch.cat([mask, torch.ones(1, 1, dtype=mask.dtype)], dim=1)
            logits.append(decode(model, torch.tensor([[5]]), longer, cache))
    assert torch.equal(*logits)
