"""Whatever generation does to the cache's batch dimension happens to the slow keys and values too."""

import pytest
import torch
from torch.nn import functional
from transformers.cache_utils import DynamicLayer

from sfvqa.model import SlowFastCache, SlowFastForConditionalGeneration
from tests.model.conftest import frames, left_padded, prompt
from tests.model.passes import decode, prefill

QUESTION = [10, 11, 12]


def filled_cache(model: SlowFastForConditionalGeneration) -> SlowFastCache:
    with torch.inference_mode():
        samples = [model.encode_video(frames(9, seed=1)), model.encode_video(frames(4, seed=2)), None]
        ids, mask = left_padded([prompt(sample, QUESTION) for sample in samples])
        return prefill(model, ids, mask, samples)[1]


def slow_rows(cache: SlowFastCache) -> list[tuple[torch.Tensor, ...]]:
    """Per sample: its slow keys and values of every hybrid layer, and its mask."""
    layers = [cache.slow_layers[layer_idx] for layer_idx in cache.slow_layers]
    assert cache.slow_mask is not None
    tensors = [tensor for pair in layers for tensor in pair] + [cache.slow_mask]
    return [tuple(tensor[row] for tensor in tensors) for row in range(len(cache.slow_mask))]


def assert_rows(cache: SlowFastCache, expected: list[tuple[torch.Tensor, ...]]) -> None:
    actual = slow_rows(cache)
    assert len(actual) == len(expected)
    for row, wanted in zip(actual, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(row, wanted, strict=True))


def test_reorder(model: SlowFastForConditionalGeneration) -> None:
    cache = filled_cache(model)
    rows = slow_rows(cache)
    cache.reorder_cache(torch.tensor([2, 0, 0]))  # type: ignore[arg-type]
    assert_rows(cache, [rows[2], rows[0], rows[0]])


def test_repeat_interleave_and_select(model: SlowFastForConditionalGeneration) -> None:
    cache = filled_cache(model)
    rows = slow_rows(cache)
    cache.batch_repeat_interleave(2)
    assert_rows(cache, [row for row in rows for _ in range(2)])
    cache.batch_select_indices(torch.tensor([4, 1]))
    assert_rows(cache, [rows[2], rows[0]])


def test_crop_keeps_the_slow_part_and_shortens_the_text(model: SlowFastForConditionalGeneration) -> None:
    cache = filled_cache(model)
    rows, length = slow_rows(cache), cache.get_seq_length()
    cache.crop(-2)
    assert cache.get_seq_length() == length - 2
    assert_rows(cache, rows)


def test_a_cropped_cache_continues_as_if_the_tokens_had_never_been(model: SlowFastForConditionalGeneration) -> None:
    with torch.inference_mode():
        sample = model.encode_video(frames(7))
        start, rest = prompt(sample, QUESTION), [20, 21]
        _, cache = prefill(model, torch.tensor([[*start, 50, 51, 52]]), None, [sample])
        cache.crop(-3)
        continued = model(torch.tensor([rest]), cache=cache, use_cache=True).logits
        expected = model(torch.tensor([start + rest]), visual_tokens=[sample]).logits[:, -2:]
    torch.testing.assert_close(continued, expected, atol=1e-5, rtol=0)


def test_reset_forgets_the_video(model: SlowFastForConditionalGeneration) -> None:
    cache = filled_cache(model)
    cache.reset()
    assert not cache.slow_layers
    assert cache.slow_mask is None


def kept(cache: SlowFastCache) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of every layer."""
    pairs = []
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        pairs.append((layer.keys, layer.values))
    return pairs


def test_a_fork_and_its_origin_grow_apart(model: SlowFastForConditionalGeneration) -> None:
    """They share what both hold, so neither may write into it; and what one forgets the other keeps."""
    with torch.inference_mode():
        sample = model.encode_video(frames(7))
        ids = prompt(sample, [*QUESTION, 20, 21])
        _, cache = prefill(model, torch.tensor([ids]), None, [sample])
        before = [(keys.clone(), values.clone()) for keys, values in kept(cache)]
        fork = cache.fork(len(ids) - 2)
        assert (fork.get_seq_length(), cache.get_seq_length()) == (len(ids) - 2, len(ids))
        assert kept(fork)[0][0].data_ptr() == kept(cache)[0][0].data_ptr()
        forked = model(torch.tensor([[20, 21]]), cache=fork).logits[:, -1]
        alone = model(torch.tensor([ids]), visual_tokens=[sample]).logits[:, -1]
        torch.testing.assert_close(forked, alone, rtol=1e-4, atol=1e-5)
        fork.batch_repeat_interleave(3)
        fork.forget_slow()
    for (keys, values), (old_keys, old_values) in zip(kept(cache), before, strict=True):
        assert torch.equal(keys, old_keys)
        assert torch.equal(values, old_values)
    assert len(slow_rows(cache)) == 1


def test_only_what_every_layer_holds_is_complete(model: SlowFastForConditionalGeneration) -> None:
    with torch.inference_mode():
        _, cache = prefill(model, torch.tensor([[1, 2, 3]]), None, [None])
    first = cache.layers[0]
    assert isinstance(first, DynamicLayer)
    first.crop(-1)
    assert cache.num_complete == 2
    assert [keys.shape[2] for keys, _ in kept(cache.fork(2))] == [2] * len(cache.layers)


def test_a_layer_broken_off_between_its_keys_and_its_values_can_be_gone_on_from(
    model: SlowFastForConditionalGeneration,
) -> None:
    """Ctrl-C came there in one of 350 answers, and no later turn of the chat could be answered."""
    with torch.inference_mode():
        _, cache = prefill(model, torch.tensor([[1, 2, 3]]), None, [None])
    first = cache.layers[0]
    assert isinstance(first, DynamicLayer)
    assert first.values is not None
    first.values = first.values[..., :2, :]
    assert cache.num_complete == 2
    assert [(keys.shape[2], values.shape[2]) for keys, values in kept(cache.fork(2))] == [(2, 2)] * len(cache.layers)


@pytest.mark.parametrize("with_videos", [(True, False, True), (False, False, False), (False, True, False)])
def test_stacked_caches_go_on_as_each_would_alone(
    model: SlowFastForConditionalGeneration, with_videos: tuple[bool, ...]
) -> None:
    """Of other lengths, with other numbers of slow tokens or none, and with several rows each."""
    batches = [
        ([frames(9, seed=1), frames(5, seed=4)], [[10, 11, 12], [13]]),
        ([frames(4, seed=2)], [[14, 15, 16, 17, 18, 19, 20]]),
        ([frames(12, seed=3)], [[21]]),
    ]
    next_ids, expected, caches, masks = torch.tensor([[7], [8], [9], [6]]), [], [], []
    with torch.inference_mode():
        for (videos, questions), has_video, ids in zip(batches, with_videos, next_ids.split([2, 1, 1]), strict=True):
            samples = [model.encode_video(video) if has_video else None for video in videos]
            prompts = [prompt(sample, question) for sample, question in zip(samples, questions, strict=True)]
            tokens, mask = left_padded(prompts)
            longer = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            expected.append(decode(model, ids, longer, prefill(model, tokens, mask, samples)[1]))
            caches.append(prefill(model, tokens, mask, samples)[1])
            masks.append(longer)
        longest = max(mask.shape[1] for mask in masks)
        mask = torch.cat([functional.pad(mask, (longest - mask.shape[1], 0)) for mask in masks])
        stacked = SlowFastCache.stack(caches)
        torch.testing.assert_close(decode(model, next_ids, mask, stacked), torch.cat(expected), atol=2e-5, rtol=1e-4)
    assert (stacked.slow_mask is not None) == any(with_videos)
    assert [cache.get_seq_length() for cache in caches] == [0, 0, 0]
    assert all(not cache.slow_layers for cache in caches)


@pytest.mark.parametrize(
    ("rows", "num_slow"), [([1, 2], "of the short one"), ([2], "none"), ([0, 1], "of the long one")]
)
def test_no_more_slow_tokens_are_kept_than_the_rows_have(
    model: SlowFastForConditionalGeneration, rows: list[int], num_slow: str
) -> None:
    """The longest video's padding stayed behind when its row had left."""
    cache = filled_cache(model)
    assert cache.slow_mask is not None
    lengths = cache.slow_mask.sum(dim=1).tolist()
    whole, expected = slow_rows(cache), {"of the short one": lengths[1], "none": 0, "of the long one": lengths[0]}
    cache.keep(torch.tensor(rows), 0)
    if num_slow == "none":
        assert cache.slow_mask is None
        assert not cache.slow_layers
        return
    most = expected[num_slow]
    assert_rows(cache, [(*(tensor[:, :most] for tensor in whole[row][:-1]), whole[row][-1][:most]) for row in rows])
    held = [tensor for pair in cache.slow_layers.values() for tensor in pair]
    assert all(tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() for tensor in held)
    assert cache.slow_is_ragged == (cache.slow_mask is not None and not bool(cache.slow_mask.all()))


def test_rows_that_are_kept_go_on_as_they_would_beside_the_others(model: SlowFastForConditionalGeneration) -> None:
    with torch.inference_mode():
        samples = [model.encode_video(frames(9, seed=1)), model.encode_video(frames(4, seed=2)), None]
    prompts = [prompt(sample, QUESTION[:number]) for number, sample in enumerate(samples, 1)]
    tokens, mask = left_padded(prompts)
    rows, next_ids = torch.tensor([1, 2]), torch.tensor([[7], [8], [9]])
    longer = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    with torch.inference_mode():
        expected = decode(model, next_ids, longer, prefill(model, tokens, mask, samples)[1])[rows]
        cache = prefill(model, tokens, mask, samples)[1]
        start = int(mask[rows].any(dim=0).int().argmax())
        assert start > 0
        cache.keep(rows, start)
        actual = decode(model, next_ids[rows], longer[rows, start:], cache)
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)
