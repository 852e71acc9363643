"""Tokens are chosen as asked, stop where they should, and are the reference's where it stored its own."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import SuppressTokensLogitsProcessor

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GeneratedToken, GenerationOptions, TokenChooser, decode, generate_tokens
from sfvqa.inference.prefill import prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttention, SlowFastForConditionalGeneration, VisualTokens
from tests.model.golden_case import GoldenCase, cases

NO_END: frozenset[int] = frozenset()
Inputs = tuple[list[list[int]], list[VisualTokens | None]]


@pytest.fixture(scope="module")
def model(qa: VideoQA) -> SlowFastForConditionalGeneration:
    return qa.checkpoint.model


@pytest.fixture(scope="module")
def inputs(encoded: EncodedVideo) -> Inputs:
    prompt = [1, 2, *[IMAGE_TOKEN_ID] * len(encoded.visual_tokens.fast), 3, 4]
    return [prompt], [encoded.visual_tokens]


def generate(
    model: SlowFastForConditionalGeneration,
    inputs: Inputs,
    options: GenerationOptions,
    end_token_ids: frozenset[int] = NO_END,
) -> list[tuple[GeneratedToken | None, ...]]:
    state = prefill(model, *inputs)
    if options.slow_attention is SlowAttention.PREFILL:
        state.cache.forget_slow()
    return list(generate_tokens(model, state, options, end_token_ids))


def first_ids(steps: list[tuple[GeneratedToken | None, ...]]) -> list[int]:
    return [step[0].token_id for step in steps if step[0] is not None]


# --- the reference's own tokens ---


STORED = {"generated_ids": SlowAttention.PREFILL, "generated_ids_slow_on_decode": SlowAttention.ALWAYS}


@pytest.mark.parametrize(
    ("name", "stored"), [(name, stored) for stored in STORED for name, case in cases().items() if stored in case]
)
def test_greedy_tokens_are_the_references(name: str, stored: str) -> None:
    case = GoldenCase.load(name)
    expected = case.expected[stored].tolist()
    options = GenerationOptions(max_new_tokens=len(expected[0]), slow_attention=STORED[stored])
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(case.input_ids, case.attention_mask, strict=True)]
    steps = generate(case.model, (prompts, list(case.visual_tokens)), options)
    assert [[step[row].token_id for step in steps] for row in range(len(expected))] == expected  # type: ignore[union-attr]


# --- where it stops ---


def test_it_stops_at_the_length_asked_for(model: SlowFastForConditionalGeneration, inputs: Inputs) -> None:
    steps = generate(model, inputs, GenerationOptions(max_new_tokens=5))
    assert [step[0].finish_reason for step in steps if step[0]] == [None] * 4 + [FinishReason.LENGTH]


def test_it_stops_at_any_end_token_and_computes_nothing_after(
    model: SlowFastForConditionalGeneration, inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = first_ids(generate(model, inputs, GenerationOptions(max_new_tokens=6)))
    place = next(n for n in range(1, 6) if free[n] not in free[:n])
    forward, passes = model.lm_head.forward, list[int]()

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model.lm_head, "forward", counted)
    steps = generate(model, inputs, GenerationOptions(max_new_tokens=6), frozenset({free[place], 271}))
    assert first_ids(steps) == free[: place + 1]
    assert steps[-1][0] == GeneratedToken(free[place], FinishReason.STOP)
    assert steps[-1][0].is_end
    assert len(passes) == 1 + place


def test_an_answer_that_ended_leaves_the_others_running(
    model: SlowFastForConditionalGeneration, encoded: EncodedVideo
) -> None:
    prompts = [[1, 2, *[IMAGE_TOKEN_ID] * len(encoded.visual_tokens.fast), 9], [5, 6, 7]]
    both: list[VisualTokens | None] = [encoded.visual_tokens, None]
    options = GenerationOptions(max_new_tokens=6)
    batch = (prompts, both)
    free = generate(model, batch, options)
    firsts, seconds = first_ids(free), [step[1].token_id for step in free if step[1]]
    end = next(token for token in firsts[:4] if token not in seconds)
    steps = generate(model, batch, options, frozenset({end}))
    ended = firsts.index(end)
    assert [step[0] is None for step in steps] == [False] * (ended + 1) + [True] * (5 - ended)
    assert [step[1].token_id for step in steps if step[1]] == seconds


def test_nothing_is_kept_for_a_backward_pass(model: SlowFastForConditionalGeneration, inputs: Inputs) -> None:
    state = prefill(model, *inputs)
    assert state.logits.is_inference()
    assert decode(model, state, torch.tensor([1])).logits.is_inference()


# --- slow attention ---


def test_slow_attention_changes_what_comes_after_the_first_token(
    model: SlowFastForConditionalGeneration, inputs: Inputs
) -> None:
    always, as_reference = (
        first_ids(generate(model, inputs, GenerationOptions(max_new_tokens=8, slow_attention=mode)))
        for mode in SlowAttention
    )
    assert always[0] == as_reference[0]
    assert always != as_reference


# --- how a token is chosen ---

LOGITS = torch.tensor([[0.0, 3.0, 2.9, -1.0]])


def draws(options: GenerationOptions, count: int = 200, logits: torch.Tensor = LOGITS) -> list[int]:
    chooser = TokenChooser(replace(options, max_new_tokens=count), 1, torch.device("cpu"))
    return [token for _ in range(count) for token in chooser.choose(logits).wait()]


def test_greedy_takes_the_likeliest() -> None:
    assert set(draws(GenerationOptions())) == {1}


def test_sampling_draws_in_proportion() -> None:
    drawn = draws(GenerationOptions(temperature=1.0), count=2000)
    chances = LOGITS[0].softmax(dim=0)
    for token in range(4):
        assert drawn.count(token) / 2000 == pytest.approx(chances[token].item(), abs=0.05)


def test_temperature_flattens_and_sharpens() -> None:
    sharp, flat = (draws(GenerationOptions(temperature=t), 500).count(3) for t in (0.2, 20.0))
    assert sharp == 0
    assert flat > 60


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 1e-45])
def test_a_temperature_near_zero_is_greedy_and_does_not_overflow(temperature: float) -> None:
    assert set(draws(GenerationOptions(temperature=temperature))) == {1}


def test_top_p_leaves_the_unlikely_out() -> None:
    assert set(draws(GenerationOptions(temperature=1.0, top_p=0.9))) == {1, 2}
    assert set(draws(GenerationOptions(temperature=1.0, top_p=0.1))) == {1}


def test_top_k_leaves_all_but_the_likeliest_out() -> None:
    assert set(draws(GenerationOptions(temperature=1.0, top_k=2))) == {1, 2}
    assert set(draws(GenerationOptions(temperature=9.0, top_k=1))) == {1}
    assert set(draws(GenerationOptions(temperature=9.0, top_k=99))) == {0, 1, 2, 3}
    assert set(draws(GenerationOptions(temperature=1.0, top_k=2, top_p=0.1))) == {1}


def test_a_logits_processor_of_transformers_chooses_with() -> None:
    suppressed = SuppressTokensLogitsProcessor([1])
    assert set(draws(GenerationOptions(logits_processor=suppressed))) == {2}
    assert set(draws(GenerationOptions(temperature=9.0, top_k=2, logits_processor=suppressed))) == {0, 2}


def test_a_logits_processor_is_given_what_was_said_and_may_write_to_the_scores() -> None:
    """Behind a penalty, in front of a temperature; the model's own logits stay as they are."""
    seen: list[list[list[int]]] = []
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]], dtype=torch.bfloat16)

    def process(said: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(said.tolist())
        assert scores.dtype is torch.float32
        scores[:, 1] = -math.inf
        return scores

    options = GenerationOptions(logits_processor=process, repetition_penalty=100.0, temperature=1e-3)
    assert draws(options, 3, logits) == [2, 3, 0]
    assert seen == [[[]], [[2]], [[2, 3]]]
    assert logits.tolist() == [[1.0, 4.0, 3.0, 2.0]]
    with pytest.raises(UsageError, match=r"shape \[1, 2\] of \[1, 4\]"):
        draws(GenerationOptions(logits_processor=lambda _said, scores: scores[:, :2]))


def test_a_seed_repeats_itself_and_another_does_not() -> None:
    assert draws(GenerationOptions(temperature=1.0, seed=3)) == draws(GenerationOptions(temperature=1.0, seed=3))
    assert draws(GenerationOptions(temperature=1.0, seed=3)) != draws(GenerationOptions(temperature=1.0, seed=4))


def test_whole_numbers_are_taken_for_decimals() -> None:
    assert len(draws(GenerationOptions(temperature=1, top_p=1, repetition_penalty=2), 5)) == 5


def test_repetition_penalty_counts_what_was_said_and_only_that() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, 2.0]])
    assert draws(GenerationOptions(repetition_penalty=100.0), 4, logits) == [1, 2, 3, 0]


def test_the_prompt_is_not_penalised(model: SlowFastForConditionalGeneration, inputs: Inputs) -> None:
    """The reference gives the prompt as embeddings, so its processors see generated ids alone."""
    free = first_ids(generate(model, inputs, GenerationOptions(max_new_tokens=1)))
    (prompt,), tokens = inputs
    state = prefill(model, *inputs)
    assert free[0] not in prompt
    again = prefill(model, [[free[0], *prompt[1:]]], tokens)
    for prefilled in (state, again):
        penalised, plain = (
            next(generate_tokens(model, prefilled, GenerationOptions(repetition_penalty=penalty), NO_END))
            for penalty in (100.0, 1.0)
        )
        assert penalised == plain


def test_each_answer_of_a_batch_draws_for_itself() -> None:
    options = GenerationOptions(temperature=1.0, seed=5)
    chooser = TokenChooser(options, 2, torch.device("cpu"))
    pairs = [chooser.choose(torch.cat([LOGITS, LOGITS.flip(1)])).wait() for _ in range(50)]
    assert [pair[0] for pair in pairs] == draws(options, 50)
    assert [pair[1] for pair in pairs] == draws(options, 50, LOGITS.flip(1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_an_error_and_no_token(bad: float) -> None:
    """In float16 a model trained in bfloat16 can overflow; argmax would then answer nonsense."""
    with pytest.raises(SfvqaError, match="not a number"):
        draws(GenerationOptions(), 1, torch.tensor([[0.0, bad]]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": math.inf},
        {"seed": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": True},
        {"temperature": "1"},
        {"top_p": None},
        {"top_k": 0},
        {"top_k": 1.5},
        {"top_k": True},
        {"log_probabilities": 1},
        {"stop_when": "END"},
        {"logits_processor": 1},
        {"seed": "0"},
        {"slow_attention": "never"},
        {"slow_attention": None},
    ],
)
def test_options_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        GenerationOptions(**wrong)  # type: ignore[arg-type]


def test_slow_attention_may_be_given_by_its_name() -> None:
    """A name stayed a string once, and then was not `is`-identical to the member: `always` computed `prefill`."""
    for scope in SlowAttention:
        assert GenerationOptions(slow_attention=scope.value).slow_attention is scope  # type: ignore[arg-type]


def test_padding_is_on_the_left_and_masked(model: SlowFastForConditionalGeneration) -> None:
    together = prefill(model, [[5], [6, 7, 8]], [None, None])
    assert together.attention_mask.tolist() == [[0, 0, 1], [1, 1, 1]]
    alone = torch.cat([prefill(model, [prompt], [None]).logits for prompt in ([5], [6, 7, 8])])
    torch.testing.assert_close(together.logits, alone, rtol=1e-4, atol=1e-4)
