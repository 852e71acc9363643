"""A model whose layers are on different devices: every tensor arrives where the layer is that uses it.

`meta` stands for the second device. Whatever mixes it with the CPU fails, as mixing two GPUs would.
"""

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from sfvqa.model import SlowFastForConditionalGeneration
from tests.model.conftest import ModelMaker, frames, left_padded, prompt


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
        logits, cache = model.prefill(ids, mask, samples)
        assert (logits.device.type, logits.shape) == ("meta", (2, 64))
        assert {index: cache.slow_keys_values(index)[0].device.type for index in cache.slow_layers} == {
            0: "cpu",
            2: "meta",
        }
        longer = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)
        assert model.decode(torch.tensor([[5], [6]]), longer, cache).device.type == "meta"


def test_prompts_are_made_elsewhere_than_the_embeddings(make_model: ModelMaker) -> None:
    """The vision tower's device is the prompt's; the embeddings may be on the next one."""
    model = make_model()
    with torch.inference_mode():
        sample = model.encode_video(frames(6))
        ids, _ = left_padded([prompt(sample, [7, 8])])
        embeddings = model.get_input_embeddings()
        add_hook_to_module(embeddings.to_empty(device="meta"), AlignDevicesHook(execution_device="meta"))
        assert model.embed(ids, [sample]).device.type == "meta"
