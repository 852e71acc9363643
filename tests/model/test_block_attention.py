"""Attention a block of queries at a time gives what torch's own kernels give, rounded once more."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from sfvqa.model.block_attention import BLOCK_ATTENTION, attend, block_attention_forward
from tests.model.conftest import ModelMaker, frames, prompt
from tests.model.passes import prefill


def tensors(num_heads: int, num_shared: int, length: int, num_keys: int, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    made = torch.randn(2, length, num_heads, 24), *(torch.randn(2, num_keys, num_shared, 24) for _ in range(2))
    return tuple(each.transpose(1, 2).to(dtype) for each in made)


def exact(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, is_causal: bool) -> Tensor:
    group = query.shape[1] // key.shape[1]
    key, value = (each.repeat_interleave(group, dim=1).double() for each in (key, value))
    scores = query.double() @ key.transpose(2, 3) * 0.2
    sees = torch.ones(scores.shape[2:], dtype=torch.bool)
    sees = sees.tril() if is_causal else sees
    scores = scores.masked_fill(~(sees if mask is None else sees & mask), -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("length", [1, 128, 129, 300])
@pytest.mark.parametrize(("num_heads", "num_shared"), [(4, 4), (6, 2)])
@pytest.mark.parametrize("kind", ["all", "causal", "masked"])
def test_blocks_together_are_the_whole(length: int, num_heads: int, num_shared: int, kind: str) -> None:
    """In float32, where nothing is rounded: the last block is shorter, and heads share keys."""
    query, key, value = tensors(num_heads, num_shared, length, length)
    mask = torch.rand(2, 1, length, length) < 0.7 if kind == "masked" else None
    if mask is not None:
        mask[..., 0] = True
    found = attend(query, key, value, mask, 0.2, is_causal=kind == "causal")
    wanted = exact(query, key, value, mask, is_causal=kind == "causal")
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-6)


def test_keys_may_be_more_than_queries() -> None:
    query, key, value = tensors(6, 2, 130, 500)
    found = attend(query, key, value, None, 0.2, is_causal=False)
    wanted = exact(query, key, value, None, is_causal=False)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("is_causal", [True, False])
def test_it_stands_in_for_sdpa_and_is_as_near_to_the_truth_as_rounding_lets_it(is_causal: bool) -> None:
    query, key, value = tensors(6, 2, 400, 400, torch.bfloat16)
    module: Any = SimpleNamespace(is_causal=is_causal, num_key_value_groups=3)
    truth = exact(query, key, value, None, is_causal=is_causal)
    errors = []
    with torch.inference_mode():
        for forward in (block_attention_forward, sdpa_attention_forward):
            found, _ = forward(module, query, key, value, None, scaling=0.2)
            errors.append(float((found.double() - truth).norm() / truth.norm()))
    assert errors[0] < 3 * errors[1] < 0.02


def test_what_no_block_is_made_for_is_left_to_sdpa(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> Tensor:
        raise AssertionError("there are blocks")

    monkeypatch.setattr("sfvqa.model.block_attention.attend", never)
    module: Any = SimpleNamespace(is_causal=True, num_key_value_groups=1)
    with torch.inference_mode():
        for dtype, length in ((torch.float32, 400), (torch.bfloat16, 20), (torch.bfloat16, 127)):
            query, key, value = tensors(2, 2, length, length, dtype)
            block_attention_forward(module, query, key, value, None, scaling=0.2)
        query, key, value = tensors(2, 2, 400, 400, torch.bfloat16)
        floating = torch.zeros(2, 1, 400, 400, dtype=torch.bfloat16)
        block_attention_forward(module, query, key, value, floating, scaling=0.2)
    block_attention_forward(module, query, key, value, None, scaling=0.2)  # gradients are wanted


@pytest.mark.parametrize("is_ragged", [False, True])
def test_a_whole_model_finds_it(make_model: ModelMaker, is_ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part looks it up by its name, with the masks that sdpa would be given."""
    model: Any = make_model()
    model.to(torch.bfloat16)
    sizes = []

    def counted(query: Tensor, *others: Any, **how: Any) -> Tensor:
        sizes.append(query.shape[2])
        return attend(query, *others, **how)

    monkeypatch.setattr("sfvqa.model.block_attention.attend", counted)
    with torch.inference_mode():
        video = model.encode_video(frames(4).to(torch.bfloat16))
        ids = prompt(video, [7] * 300)
        rows = [ids, [0] * 40 + ids[40:]] if is_ragged else [ids]
        mask = torch.tensor([[1] * len(ids), [0] * 40 + [1] * (len(ids) - 40)][: len(rows)])
        videos = [video, None][: len(rows)]
        if is_ragged:
            rows[1] = [0] * 40 + [7] * (len(ids) - 40)
        expected, _ = prefill(model, torch.tensor(rows), mask, videos)
        model.set_attn_implementation(BLOCK_ATTENTION)
        found, _ = prefill(model, torch.tensor(rows), mask, videos)
    assert sizes == [len(ids)] * len(model.language_model.layers)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
