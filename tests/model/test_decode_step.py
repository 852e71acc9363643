"""A step of one token computes what a forward pass does, in every decoder family, batch and cache."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sfvqa.inference.engine import GenerationOptions, generate_tokens
from sfvqa.inference.prefill import prefill as engine_prefill
from sfvqa.model import DecodeStep, RecordedSteps, SlowFastCache, SlowFastForConditionalGeneration, VisualTokens
from sfvqa.model.hybrid_layer import FAMILIES
from tests.model.conftest import ModelMaker, frames, greedy, prompt
from tests.model.decoders import DECODERS, SIZES
from tests.model.passes import decode, prefill

WHOLE = {name: decoder for name, decoder in DECODERS.items() if not decoder.get("sliding_window")}
NUM_STEPS, ROOM = 8, 512


def batch(model: SlowFastForConditionalGeneration) -> tuple[Tensor, Tensor, list[VisualTokens | None]]:
    """Two videos of different lengths and a text, padded on the left: ids, mask, visual tokens."""
    with torch.inference_mode():
        one, other = model.encode_video(frames(4)), model.encode_video(frames(7))
    prompts = [prompt(one, [7, 8, 9]), [5, *prompt(other, [7, 8])], [9, 10]]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    return ids, mask, [one, other, None]


def both(
    model: SlowFastForConditionalGeneration, *, num_rows: int = 3, forget_slow: bool = False, recorded: bool = False
) -> tuple[list[Tensor], list[Tensor], SlowFastCache, SlowFastCache]:
    """Logits of every step of greedy decoding, by forward passes and by steps, and the caches that they leave."""
    ids, mask, tokens = batch(model)
    first = 0 if num_rows > 1 else int((mask[0] == 0).sum())
    ids, mask, tokens = ids[:num_rows, first:], mask[:num_rows, first:], tokens[:num_rows]
    with torch.inference_mode():
        (logits, growing), (_, stepping) = (prefill(model, ids, mask, tokens) for _ in range(2))
        for cache in (growing, stepping):
            if forget_slow:
                cache.forget_slow()
        assert DecodeStep.is_possible(model)
        step: Any = (
            RecordedSteps().begin(model, stepping, mask, ROOM)
            if recorded
            else DecodeStep(model, stepping, mask, NUM_STEPS)
        )
        expected, found = [], []
        for _ in range(NUM_STEPS):
            chosen = logits.argmax(-1)
            found.append(step(chosen).clone())
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
            logits = decode(model, chosen[:, None], mask, growing)
            expected.append(logits)
    return expected, found, growing, stepping


@pytest.mark.parametrize("how", [{}, {"num_rows": 1}, {"forget_slow": True}, {"recorded": True}], ids=str)
@pytest.mark.parametrize("decoder", WHOLE.values(), ids=list(WHOLE))
def test_a_step_computes_what_a_forward_pass_does(
    decoder: dict[str, Any], how: dict[str, Any], make_model: ModelMaker
) -> None:
    expected, found, growing, stepping = both(make_model(text_config=decoder), **how)
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert torch.equal(ours.argmax(-1), theirs.argmax(-1))
    if how.get("recorded"):
        assert stepping.get_seq_length() == growing.get_seq_length() - NUM_STEPS, "what it holds is the prompt's"
        return
    layers: list[tuple[Any, Any]] = list(zip(growing.layers, stepping.layers, strict=True))
    for theirs, ours in layers:
        torch.testing.assert_close(ours.keys, theirs.keys)
        torch.testing.assert_close(ours.values, theirs.values)


def test_what_shares_the_cache_sees_none_of_the_tokens(make_model: ModelMaker) -> None:
    """Steps write behind what a fork holds; the fork grows on its own."""
    model = make_model()
    ids, mask, tokens = batch(model)
    with torch.inference_mode():
        _, cache = prefill(model, ids, mask, tokens)
        step = DecodeStep(model, cache, mask, NUM_STEPS)
        step(torch.tensor([1, 2, 3]))
        fork = cache.fork(cache.get_seq_length())
        forked: Any = fork.layers[0]
        expected = forked.keys.clone()
        grown = torch.cat([mask, mask.new_ones(3, 2)], dim=1)
        decode(model, torch.tensor([[4], [5], [6]]), grown, fork)
        here = step(torch.tensor([7, 8, 9]))
        _, again = prefill(model, ids, mask, tokens)
        decode(model, torch.tensor([[1], [2], [3]]), grown[:, :-1], again)
        there = decode(model, torch.tensor([[7], [8], [9]]), grown, again)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-5)
    assert torch.equal(forked.keys[:, :, :-1], expected)


@pytest.mark.parametrize("name", sorted(DECODERS.keys() - WHOLE.keys()))
def test_a_cache_that_forgets_is_left_to_the_forward_pass(name: str, make_model: ModelMaker) -> None:
    model = make_model(text_config=DECODERS[name])
    assert not DecodeStep.is_possible(model)


def test_other_attention_is_left_to_the_forward_pass(make_model: ModelMaker) -> None:
    model = make_model()
    model.set_attn_implementation("eager")
    assert not DecodeStep.is_possible(model)


def test_a_model_that_prefills_with_flash_attn_decodes_a_padded_batch_by_sdpa(make_model: ModelMaker) -> None:
    """flash-attn, which is not installed here, would be called for each layer of a forward pass."""
    model = make_model()
    ids, mask, tokens = batch(model)
    chosen, grown = torch.tensor([1, 2, 3]), torch.cat([mask, mask.new_ones(3, 1)], dim=1)
    with torch.inference_mode():
        (_, growing), (_, stepping) = (prefill(model, ids, mask, tokens) for _ in range(2))
        expected = decode(model, chosen[:, None], grown, growing)
        for config in (model.config, model.config.decoder_config):
            config._attn_implementation = "flash_attention_2"
        assert DecodeStep.is_possible(model)
        found = DecodeStep(model, stepping, mask, NUM_STEPS)(chosen)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class _Watch(TorchDispatchMode):
    """Which operations run: CUDA cannot record one whose result the processor looks at, or that copies from it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


_WAITS = ("item", "local_scalar", "index.Tensor", "nonzero", "lift", "masked_select", "equal.default", "unique")


def test_a_decoder_that_no_step_is_written_for_runs_by_its_own_forward(
    make_model: ModelMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Granite scales its embeddings and what each layer adds, which a step would silently leave out."""
    monkeypatch.setitem(FAMILIES, "granite", "Granite")
    scales = {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.25}
    model = make_model(text_config={"model_type": "granite", **SIZES, **scales})
    assert not DecodeStep.is_possible(model)
    assert not RecordedSteps.is_possible(model)
    with torch.inference_mode():
        video = model.encode_video(frames(4))
    prompts, videos = [prompt(video, [7, 8, 9]), [9, 10]], [video, None]
    steps = generate_tokens(model, engine_prefill(model, prompts, videos), GenerationOptions(12), frozenset())
    written = [[token.token_id for token in step if token] for step in steps]
    assert list(map(list, zip(*written, strict=True))) == greedy(model, prompts, videos)


@pytest.mark.parametrize("forget_slow", [False, True])
def test_nothing_in_a_recorded_step_is_looked_at_by_the_processor(make_model: ModelMaker, forget_slow: bool) -> None:
    """What would break the recording on CUDA, seen without one: `.item()`, `if tensor`, tensors made of numbers."""
    model = make_model()
    ids, mask, tokens = batch(model)
    with torch.inference_mode():
        _, cache = prefill(model, ids, mask, tokens)
        if forget_slow:
            cache.forget_slow()
        step: Any = RecordedSteps().begin(model, cache, mask, ROOM)
        step(torch.tensor([5, 6, 7]))
        with _Watch() as watch:
            step.func._run()
    assert any("linear" in name or "mm" in name for name in watch.seen)
    assert not [name for name in watch.seen if any(waits in name for waits in _WAITS)]


def num_operations(run: Callable[[], object]) -> int:
    """Those that compute: a view is made on the way."""
    with _Watch() as watch:
        run()
    return len([name for name in watch.seen if not any(view in name for view in _VIEWS)])


def test_a_layer_takes_few_operations(make_model: ModelMaker) -> None:
    """Each is a kernel to start on a GPU, and a call on a CPU: a forward pass has half as many more."""
    model = make_model(text_config=DECODERS["llama"], hybrid_layers=())
    prompt, mask = torch.tensor([[1, 2, 3]]), torch.ones(1, 4, dtype=torch.long)
    with torch.inference_mode():
        (_, cache), (_, growing) = (prefill(model, prompt, mask[:, :3], [None]) for _ in range(2))
        step = DecodeStep(model, cache, mask[:, :3], NUM_STEPS)
        ours = num_operations(lambda: step(torch.tensor([1])))
        theirs = num_operations(lambda: decode(model, torch.tensor([[1]]), mask, growing))
    assert ours <= 30 * len(model.language_model.layers)
    assert ours <= theirs / 1.5


_VIEWS = ("view", "slice", "transpose", "squeeze", "expand", "select.int", "split", "alias", "detach", "aten.t.")
