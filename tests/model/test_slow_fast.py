"""What must hold for any weights: cached = uncached, batch = single, nothing of one request reaches the next."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch

from sfvqa.errors import SfvqaError
from sfvqa.model import SlowAttention, SlowAttentionScope, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.hybrid_layer import GatedSlowAttention, HybridAttentionMixin
from tests.model.conftest import ModelMaker, frames, greedy, left_padded, prompt
from tests.model.passes import decode, prefill

QUESTION = [10, 11, 12, 13]


def encode(model: SlowFastForConditionalGeneration, num_frames: int, seed: int = 0) -> VisualTokens:
    with torch.inference_mode():
        return model.encode_video(frames(num_frames, seed))


@pytest.mark.parametrize("scope", SlowAttentionScope)
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_decoding_with_the_cache_equals_one_pass_over_everything(
    make_model: ModelMaker, scope: SlowAttentionScope, num_frames: int
) -> None:
    model = make_model(slow_attention_scope=scope)
    sample = encode(model, num_frames)
    start = prompt(sample, QUESTION)
    generated = greedy(model, [start], [sample])[0]
    ids = torch.tensor([start + generated])
    with torch.inference_mode():
        logits = model(ids, visual_tokens=[sample], use_cache=False).logits
    assert logits[0, len(start) - 1 : -1].argmax(dim=-1).tolist() == generated


def test_prefill_mode_drops_the_slow_tokens_while_decoding(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    ids = torch.tensor([prompt(sample, QUESTION)])
    token, mask = torch.tensor([[5]]), torch.ones(1, ids.shape[1] + 1, dtype=torch.long)
    with torch.inference_mode():
        first_always, always = prefill(model, ids, None, [sample])
        first_reference, reference = prefill(model, ids, None, [sample], slow_attention=SlowAttention.PREFILL)
        torch.testing.assert_close(first_always, first_reference)
        assert (decode(model, token, mask, always) - decode(model, token, mask, reference)).abs().max() > 1e-2
    assert not reference.slow_layers


@pytest.mark.parametrize("hybrid_layers", [[0, 2], [1], [0, 1, 2]])
def test_hybrid_layers_that_get_no_cache_are_an_error(
    hybrid_layers: list[int], make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers 5.24 calls `past_key_values` `cache`: the answers went wrong, and nothing said so."""
    model = make_model(hybrid_layers=hybrid_layers)
    attend = HybridAttentionMixin.forward

    def attend_without_cache(self: HybridAttentionMixin, *args: Any, **kwargs: Any) -> Any:
        return attend(self, *args, **(kwargs | {"cache": None}))

    monkeypatch.setattr(HybridAttentionMixin, "forward", attend_without_cache)
    sample = encode(model, 7)
    with torch.inference_mode(), pytest.raises(SfvqaError, match=r"transformers \d+\.\d+"):
        prefill(model, torch.tensor([prompt(sample, QUESTION)]), None, [sample])


def test_slow_attention_by_name_is_slow_attention(model: SlowFastForConditionalGeneration) -> None:
    """A plain "always" was compared with `is` once, and silently computed `prefill`."""
    sample = encode(model, 7)
    ids = torch.tensor([prompt(sample, QUESTION)])
    with torch.inference_mode():
        _, always = prefill(model, ids, None, [sample], slow_attention="always")
        with pytest.raises(ValueError, match="sometimes"):
            prefill(model, ids, None, [sample], slow_attention="sometimes")
    assert always.slow_layers.keys() == {0, 2}


def test_a_batch_of_different_videos_gives_what_each_gives_alone(model: SlowFastForConditionalGeneration) -> None:
    samples = [encode(model, 9, seed=1), None, encode(model, 2, seed=2), encode(model, 1, seed=3)]
    questions = [QUESTION, [20, 21], [30, 31, 32, 33, 34, 35], [40]]
    prompts = [prompt(sample, question) for sample, question in zip(samples, questions, strict=True)]
    alone = [greedy(model, [row], [sample])[0] for row, sample in zip(prompts, samples, strict=True)]
    assert greedy(model, prompts, samples) == alone
    assert len({tuple(row) for row in alone}) == len(alone), "the samples must differ for this to show anything"


def test_a_single_image_goes_through_generation(model: SlowFastForConditionalGeneration) -> None:
    with torch.inference_mode():
        sample = model.encode_video(frames(1))
    assert sample.slow.shape == sample.fast.shape == (16, 32)
    assert len(greedy(model, [prompt(sample, QUESTION)], [sample])[0]) == 12


def test_nothing_of_a_video_reaches_the_next_request(model: SlowFastForConditionalGeneration) -> None:
    """The reference wrote slow tokens onto its layers: a text-only prompt crashed or saw the last video."""
    first, second = encode(model, 9, seed=1), encode(model, 5, seed=2)
    requests = [(first, QUESTION), (None, QUESTION), (second, QUESTION)]
    fresh = [greedy(copy.deepcopy(model), [prompt(sample, q)], [sample]) for sample, q in requests]
    attributes = [sorted(vars(module)) for module in model.modules()]
    assert [greedy(model, [prompt(sample, q)], [sample]) for sample, q in requests] == fresh
    assert attributes == [sorted(vars(module)) for module in model.modules()]


def test_other_slow_tokens_change_the_logits_at_prefill_and_at_every_step(
    model: SlowFastForConditionalGeneration,
) -> None:
    sample = encode(model, 7)
    other = VisualTokens(slow=sample.slow.flip(-1), fast=sample.fast)
    ids = torch.tensor([prompt(sample, QUESTION)])
    mask = torch.ones(1, ids.shape[1] + 1, dtype=torch.long)
    with torch.inference_mode():
        (logits, cache), (other_logits, other_cache) = (prefill(model, ids, None, [each]) for each in (sample, other))
        assert (logits - other_logits).abs().max() > 1e-2
        step, other_step = (decode(model, torch.tensor([[5]]), mask, each) for each in (cache, other_cache))
        assert (step - other_step).abs().max() > 1e-2


def test_with_the_gate_at_zero_the_slow_tokens_do_nothing(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    other = VisualTokens(slow=sample.slow.flip(-1), fast=sample.fast)
    ids = torch.tensor([prompt(sample, QUESTION)])
    with torch.inference_mode():
        before = model(ids, visual_tokens=[sample]).logits
        with model.without_slow():
            logits = [model(ids, visual_tokens=[each]).logits for each in (sample, other)]
        assert torch.equal(logits[0], logits[1])
        assert torch.equal(model(ids, visual_tokens=[sample]).logits, before), "the gates must come back"


def test_slow_keys_and_values_are_computed_once_a_layer(model: SlowFastForConditionalGeneration) -> None:
    """The reference recomputed them at every step: ten times the work of the step itself."""
    sample = encode(model, 7)
    project = HybridAttentionMixin.project_slow
    with mock.patch.object(HybridAttentionMixin, "project_slow", autospec=True, side_effect=project) as spy:
        greedy(model, [prompt(sample, QUESTION)], [sample])
    assert spy.call_count == len(model.config.hybrid_layers)


@pytest.mark.parametrize("at_a_time", [1, 5, 1000])
def test_slow_tokens_are_projected_in_parts(
    model: SlowFastForConditionalGeneration, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norm of all of them together took five times as long as the projection behind it."""
    samples: list[VisualTokens | None] = [encode(model, 7), None, encode(model, 3)]
    ids, mask = left_padded([prompt(sample, QUESTION) for sample in samples])
    with torch.inference_mode():
        logits, cache = prefill(model, ids, mask, samples)
        monkeypatch.setattr("sfvqa.model.slow_fast._PROJECTED_AT_A_TIME", at_a_time)
        again, in_parts = prefill(model, ids, mask, samples)
    torch.testing.assert_close(again, logits, rtol=0, atol=1e-5)
    for layer_idx, keys_values in cache.slow_layers.items():
        for found, expected in zip(in_parts.slow_layers[layer_idx], keys_values, strict=True):
            assert found.is_contiguous()
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_only_text_positions_become_queries(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    num_text = 3 + len(QUESTION)
    widths = []
    first = next(module for module in model.modules() if isinstance(module, GatedSlowAttention))
    assert first.gate_proj is not None
    handle = first.gate_proj.register_forward_hook(lambda _module, inputs, _output: widths.append(inputs[0].shape[1]))
    greedy(model, [prompt(sample, QUESTION)], [sample], num_tokens=2)
    handle.remove()
    assert widths == [num_text, 1, 1]


def test_the_head_runs_on_the_last_position_only(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    lengths = []
    handle = model.lm_head.register_forward_hook(lambda _module, inputs, _output: lengths.append(inputs[0].shape[1]))
    ids = torch.tensor([prompt(sample, QUESTION)])
    model.generate(ids, visual_tokens=[sample], max_new_tokens=3, do_sample=False)
    greedy(model, [ids[0].tolist()], [sample], num_tokens=2)
    handle.remove()
    assert set(lengths) == {1}


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_the_chunk_size_changes_nothing_but_memory(model: SlowFastForConditionalGeneration, chunk_size: int) -> None:
    sizes = []
    handle = model.vision_tower.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    with torch.inference_mode():
        chunked = model.encode_video(frames(7), chunk_size=chunk_size)
        whole = model.encode_video(frames(7))
    handle.remove()
    torch.testing.assert_close(chunked.slow, whole.slow, atol=1e-6, rtol=0)
    torch.testing.assert_close(chunked.fast, whole.fast, atol=1e-6, rtol=0)
    assert max(sizes[:-1]) <= chunk_size


def test_a_second_turn_looks_at_the_slow_tokens_in_the_cache(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    first, second = prompt(sample, QUESTION), [20, 21, 22]
    with torch.inference_mode():
        _, cache = prefill(model, torch.tensor([first]), None, [sample])
        continued = model(torch.tensor([second]), cache=cache, use_cache=True).logits
        at_once = model(torch.tensor([first + second]), visual_tokens=[sample]).logits[:, len(first) :]
    torch.testing.assert_close(continued, at_once, atol=1e-5, rtol=0)


def test_a_prompt_whose_placeholders_do_not_match_is_refused(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    with pytest.raises(ValueError, match="placeholders"):
        model(torch.tensor([prompt(sample, QUESTION)[:-10]]), visual_tokens=[sample])
    with pytest.raises(ValueError, match="placeholders"):
        model(torch.tensor([prompt(sample, QUESTION)]))


@pytest.mark.parametrize("kwargs", [{"num_beams": 3}, {"do_sample": True}, {"repetition_penalty": 1.2}])
def test_generate_of_transformers_runs_with_a_mixed_batch(
    model: SlowFastForConditionalGeneration, kwargs: dict[str, Any]
) -> None:
    samples = [encode(model, 7), None]
    ids, mask = left_padded([prompt(sample, QUESTION) for sample in samples])
    generated = model.generate(ids, attention_mask=mask, visual_tokens=samples, max_new_tokens=5, **kwargs)
    assert generated.shape == (2, ids.shape[1] + 5)
    assert torch.equal(generated[:, : ids.shape[1]], ids)


def test_beams_of_a_batch_equal_beams_alone(model: SlowFastForConditionalGeneration) -> None:
    """Beam search reorders the cache: a slow part left behind would answer about the neighbour's video."""
    samples = [encode(model, 9, seed=1), encode(model, 3, seed=2)]
    prompts = [prompt(sample, QUESTION) for sample in samples]
    ids, mask = left_padded(prompts)
    options: dict[str, Any] = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    together = model.generate(ids, attention_mask=mask, visual_tokens=samples, **options)
    alone = [
        model.generate(torch.tensor([row]), visual_tokens=[sample], **options)[0, -6:]
        for row, sample in zip(prompts, samples, strict=True)
    ]
    assert together[:, -6:].tolist() == [row.tolist() for row in alone]


@pytest.mark.cuda
def test_a_gpu_gives_the_tokens_of_the_cpu(model: SlowFastForConditionalGeneration) -> None:
    sample = encode(model, 7)
    expected = greedy(model, [prompt(sample, QUESTION)], [sample])
    on_gpu = copy.deepcopy(model).to("cuda")  # type: ignore[arg-type]
    ids = torch.tensor([prompt(sample, QUESTION)]).cuda()
    with torch.inference_mode():
        generated = on_gpu.generate(
            ids, visual_tokens=[on_gpu.encode_video(frames(7))], max_new_tokens=12, do_sample=False
        )
    assert generated[:, -12:].tolist() == expected


def test_a_prompt_with_a_video_goes_through_autocast(model: SlowFastForConditionalGeneration) -> None:
    """Autocast gave slow attention another dtype than what it is added to, and the addition refused."""
    sample = encode(model, 7)
    ids = torch.tensor([prompt(sample, QUESTION)])
    with torch.inference_mode():
        expected = model(ids, visual_tokens=[sample]).logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids, visual_tokens=[sample]).logits
    torch.testing.assert_close(logits.float(), expected, atol=0.2, rtol=0)
