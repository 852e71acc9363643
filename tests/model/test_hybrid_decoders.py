"""Every decoder family with hybrid layers computes what Qwen2 does with them: alone, cached, trained and placed."""

from typing import Any

import pytest
import torch

from sfvqa.checkpoints.plan import architecture_of
from sfvqa.errors import CheckpointError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import FAMILIES, hybrid_decoder
from sfvqa.model.quantization import quantizable_linears
from tests.model.conftest import ModelMaker, frames, greedy, prompt, small_config
from tests.model.decoders import DECODERS

EVERY_DECODER = pytest.mark.parametrize("decoder", DECODERS.values(), ids=list(DECODERS))


def test_every_family_is_tested() -> None:
    assert {decoder["model_type"] for decoder in DECODERS.values()} == set(FAMILIES)


@EVERY_DECODER
def test_decoding_step_by_step_is_as_reading_at_once(decoder: dict[str, Any], make_model: ModelMaker) -> None:
    """Longer than a window, so that a mask or a cache that forgets too much shows."""
    model = make_model(text_config=decoder)
    with torch.inference_mode():
        sample = model.encode_video(frames(4))
        prompts = [prompt(sample, [7, 8, 9])]
        chosen = greedy(model, prompts, [sample], num_tokens=6)[0]
        whole = model(torch.tensor([prompts[0] + chosen[:-1]]), visual_tokens=[sample]).logits
    assert whole[0, -len(chosen) :].argmax(-1).tolist() == chosen


@EVERY_DECODER
def test_slow_tokens_are_seen_by_text_alone(decoder: dict[str, Any], make_model: ModelMaker) -> None:
    model = make_model(text_config=decoder)
    with torch.inference_mode():
        sample = model.encode_video(frames(4))
        ids = torch.tensor([prompt(sample, [7, 8, 9])])
        seen = model(ids, visual_tokens=[sample]).logits
        with model.without_slow():
            blind = model(ids, visual_tokens=[sample]).logits
        text = torch.tensor([[1, 2, 3, 4]])
        plain = model(text).logits
        with model.without_slow():
            assert torch.equal(plain, model(text).logits)
    assert not torch.allclose(seen[:, -1], blind[:, -1], atol=1e-3)


@EVERY_DECODER
def test_gradient_checkpointing_gives_the_same_gradients(decoder: dict[str, Any], make_model: ModelMaker) -> None:
    def gradients(*, checkpointing: bool) -> dict[str, torch.Tensor]:
        model = make_model(text_config=decoder)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable()
        sample = model.encode_video(frames(4))
        ids = torch.tensor([prompt(sample, [7, 8, 9])])
        labels = ids.masked_fill(ids < 4, -100)
        model(ids, visual_tokens=[sample], labels=labels).loss.backward()
        return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}

    plain, checkpointed = gradients(checkpointing=False), gradients(checkpointing=True)
    assert any("slow_attention.kv_proj" in name for name in plain)
    assert any("vision_tower" in name for name in plain)
    assert plain.keys() == checkpointed.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


@pytest.mark.parametrize(("checkpointing", "num_passes"), [(False, 1), (True, 2)])
def test_slow_keys_and_values_are_computed_again_with_their_layers(
    make_model: ModelMaker, checkpointing: bool, num_passes: int
) -> None:
    """What they are computed from is as long as the video: kept, it would be most of what checkpointing saves."""
    model = make_model()
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    projected: list[str] = []
    for name, module in model.named_modules():
        if name.endswith("slow_attention.kv_proj"):
            module.register_forward_pre_hook(lambda *_, name=name: projected.append(name))
    sample = model.encode_video(frames(4))
    ids = torch.tensor([prompt(sample, [7, 8, 9])])
    model(ids, visual_tokens=[sample], labels=ids.masked_fill(ids < 4, -100)).loss.backward()
    assert len(projected) == num_passes * len(model.config.hybrid_layers)


@EVERY_DECODER
def test_no_layer_of_it_is_split_between_devices(decoder: dict[str, Any]) -> None:
    model = SlowFastForConditionalGeneration(small_config(text_config=decoder))
    layers = {type(layer).__name__ for layer in model.language_model.layers}
    assert layers | {"ConvNextBlock"} <= set(model._no_split_modules or [])


@EVERY_DECODER
def test_only_the_layers_own_linears_are_quantized(decoder: dict[str, Any]) -> None:
    names = quantizable_linears(SlowFastForConditionalGeneration(small_config(text_config=decoder)))
    assert len(names) == decoder["num_hidden_layers"] * 7
    assert not any("slow_attention" in name for name in names)


@EVERY_DECODER
def test_its_parameters_are_counted_right_without_it(decoder: dict[str, Any]) -> None:
    config = small_config(text_config=decoder)
    with torch.device("meta"):
        model = SlowFastForConditionalGeneration(config)
    assert architecture_of(config).num_parameters == sum(weight.numel() for weight in model.parameters())


def test_a_window_is_the_familys_own(make_model: ModelMaker) -> None:
    """Flash-attn takes it from the attention, other implementations from the mask."""
    windows = {}
    for name, decoder in DECODERS.items():
        layers = make_model(text_config=decoder).language_model.layers
        windows[name] = [layers[index].self_attn.sliding_window for index in (0, 2)]
    assert windows["mistral"] == [5, 5]
    assert windows["mistral without window"] == [None, None]
    assert windows["qwen2 with windows"] == windows["qwen3 with biases and windows"] == [None, 5]
    assert windows["qwen2"] == windows["llama"] == [None, None]


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(CheckpointError, match=r"'gpt2' have no hybrid layers.*llama, mistral, qwen2, qwen3"):
        hybrid_decoder("gpt2")
