"""Slow attention through every kernel: the same numbers, and keys that are never repeated for the heads that share."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from sfvqa.model.hybrid_layer import GatedSlowAttention
from tests.model.conftest import ModelMaker, frames, left_padded, prompt
from tests.model.passes import decode, prefill


@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)], ids=["even", "ragged"])
def test_eager_and_sdpa_agree(make_model: ModelMaker, lengths: tuple[int, int]) -> None:
    model = make_model()
    logits = []
    for kernel in ("eager", "sdpa"):
        model.set_attn_implementation(kernel)
        with torch.inference_mode():
            samples = [model.encode_video(frames(length)) for length in lengths]
            prompts = [prompt(sample, [7, 8, 9][:count]) for count, sample in enumerate(samples, start=2)]
            logits.append(prefill(model, *left_padded(prompts), samples)[0])
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [(6, 6), (6, 4)], ids=["even", "ragged"])
def test_keys_reach_the_kernel_as_they_are_kept(
    make_model: ModelMaker, lengths: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers copies keys for the heads that share them whenever there is a mask; a video has thousands."""
    given: list[tuple[int, int]] = []

    def recording(module: Any, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, GatedSlowAttention):
            given.append((query.shape[1], key.data_ptr()))
            assert getattr(module, "num_key_value_groups", 1) == 1
        return sdpa(module, query, key, *args, **kwargs)

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", recording)
    model = make_model()
    with torch.inference_mode():
        samples = [model.encode_video(frames(length)) for length in lengths]
        ids, mask = left_padded([prompt(sample, [7, 8]) for sample in samples])
        _, cache = prefill(model, ids, mask, samples)
        given.clear()
        decode(model, torch.tensor([[5], [6]]), torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1), cache)
    kept = [cache.slow_layers[index][0].data_ptr() for index in cache.slow_layers]
    assert given == [(model.config.decoder_config.num_key_value_heads, pointer) for pointer in kept]
