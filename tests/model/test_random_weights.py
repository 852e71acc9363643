"""Networks without trained weights: every part does something, in every quantization, the same each time."""

import pytest
import torch

from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.slow_fast import random_model
from tests.model.conftest import frames, left_padded, prompt, small_config
from tests.model.passes import prefill


def logits_of(model: SlowFastForConditionalGeneration) -> torch.Tensor:
    with torch.inference_mode():
        sample = model.encode_video(frames(6))
        return prefill(model, *left_padded([prompt(sample, [7, 8, 9])]), [sample])[0].float()


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_kind_runs(quantization: str, dtype: torch.dtype) -> None:
    model = random_model(small_config(), dtype=dtype, quantization=quantization)
    assert not model.training
    assert model.dtype is dtype
    assert logits_of(model).isfinite().all()


def test_a_seed_is_a_model() -> None:
    first, second, other = (random_model(small_config(), dtype=torch.float32, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_slow_attention_and_the_frames_have_a_say() -> None:
    """At their first values, zero, gates and layer scales would leave out the very work that is to be measured."""
    model = random_model(small_config(), dtype=torch.float32)
    with_slow = logits_of(model)
    with model.without_slow():
        assert not torch.equal(logits_of(model), with_slow)
    tower = model.vision_tower
    with torch.inference_mode():
        assert not torch.allclose(tower(frames(1)), tower(frames(1, seed=1)))


def test_tied_embeddings_are_one_tensor() -> None:
    text = small_config().decoder_config.to_dict() | {"tie_word_embeddings": True}
    model = random_model(small_config(text_config=text), dtype=torch.float32)
    assert model.lm_head.weight is model.get_input_embeddings().weight
