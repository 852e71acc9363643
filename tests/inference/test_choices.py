"""Choices are compared as if each were scored from scratch, and what is reported are probabilities."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from sfvqa.errors import PromptTooLongError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.choices import choice_token_ids, compare, ends_count, unlikely_warning
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import build_prompt, question_turn
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttention

QUESTION = "Which way does the bar move?"
LETTERS = ("A", "B", "C", "D")
WORDS = ("to the left", "right", "up, then down", "not at all")
NESTED = ("left", "left and up", "up")


def from_scratch(qa: VideoQA, encoded: EncodedVideo | None, choices: Sequence[str], *, with_end: bool) -> list[float]:
    """One pass without a cache over prompt and choice, and the full softmax at every place."""
    tokenizer, model = qa.checkpoint.tokenizer, qa.checkpoint.model
    num_fast = len(encoded.visual_tokens.fast) if encoded else 0
    prompt = build_prompt(
        tokenizer, [question_turn(QUESTION, shows_video=encoded is not None)], layout=(num_fast, "\n")
    )
    totals = []
    for ids in choice_token_ids(tokenizer, choices):
        visual = [encoded.visual_tokens if encoded else None]
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *ids]]), visual_tokens=visual, use_cache=False).logits[0]
        log_probabilities = logits.log_softmax(dim=-1)
        total = sum(float(log_probabilities[len(prompt) - 1 + place, token]) for place, token in enumerate(ids))
        if with_end:
            ends = log_probabilities[-1, sorted(qa.checkpoint.end_token_ids)]
            total += math.log(sum(math.exp(float(end)) for end in ends))
        totals.append(total)
    return totals


@pytest.mark.parametrize(("choices", "with_end"), [(LETTERS, False), (WORDS, False), (NESTED, True)])
@pytest.mark.parametrize("shows_video", [True, False])
def test_scores_are_those_of_each_choice_from_scratch(
    qa: VideoQA, encoded: EncodedVideo, choices: tuple[str, ...], with_end: bool, shows_video: bool
) -> None:
    """The prompt is prefilled once and its cache cropped after each choice; nothing of one may be left for the next."""
    video = encoded if shows_video else None
    answer = qa.ask(video, QUESTION, choices=choices)
    wanted = from_scratch(qa, video, choices, with_end=with_end)
    assert [choice.log_probability for choice in answer.choices] == pytest.approx(wanted, abs=1e-5, rel=1e-6)
    shares = torch.tensor(wanted, dtype=torch.float64).softmax(dim=0).tolist()
    assert [choice.probability for choice in answer.choices] == pytest.approx(shares, abs=1e-5)


@pytest.mark.parametrize("choices", [("The circle moves left.", "The circle moves right."), NESTED])
def test_the_bundled_model_scores_as_from_scratch(video_path: Path, choices: tuple[str, ...]) -> None:
    """Its tokens are longer than a byte, and its slow tokens were trained."""
    tiny = VideoQA.load("tiny", device="cpu")
    encoded = tiny.encode(video_path)
    answer = tiny.ask(encoded, QUESTION, choices=choices)
    wanted = from_scratch(tiny, encoded, choices, with_end=choices is NESTED)
    assert [choice.log_probability for choice in answer.choices] == pytest.approx(wanted, abs=2e-5, rel=1e-6)


def test_the_probabilities_are_one_together_and_the_answer_is_the_likeliest(qa: VideoQA, encoded: EncodedVideo) -> None:
    answer = qa.ask(encoded, QUESTION, choices=WORDS)
    assert [choice.text for choice in answer.choices] == list(WORDS)
    assert sum(choice.probability for choice in answer.choices) == pytest.approx(1, abs=1e-12)
    best = max(answer.choices, key=lambda choice: choice.probability)
    assert (answer.text, answer.finish_reason) == (best.text, FinishReason.CHOICE)
    assert answer.tokens.new == len(best.text)  # a token a byte
    record = answer.to_dict()["choices"]
    assert isinstance(record, list)
    assert list(record[0]) == ["text", "probability", "log_probability"]


def test_the_order_of_the_choices_changes_nothing(qa: VideoQA, encoded: EncodedVideo) -> None:
    there, back = (qa.ask(encoded, QUESTION, choices=order) for order in (WORDS, WORDS[::-1]))
    assert there.text == back.text
    for one, other in zip(there.choices, reversed(back.choices), strict=True):
        assert one.probability == pytest.approx(other.probability, abs=1e-6)


def test_video_and_slow_tokens_change_the_scores(
    qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo
) -> None:
    """Tokens of a choice look at the slow tokens at every place, as in training."""
    prefill_only = GenerationOptions(slow_attention=SlowAttention.PREFILL)
    answers = [
        qa.ask(encoded, QUESTION, choices=WORDS),
        qa.ask(encoded_short, QUESTION, choices=WORDS),
        qa.ask(None, QUESTION, choices=WORDS),
        qa.ask(encoded, QUESTION, prefill_only, choices=WORDS),
    ]
    assert len({answer.choices for answer in answers}) == len(answers)


def test_a_batch_chooses_what_each_would_alone(qa: VideoQA, encoded: EncodedVideo, encoded_short: EncodedVideo) -> None:
    asked = [(encoded, QUESTION), (encoded_short, "What?"), (None, QUESTION)]
    together = qa.answer_batch(asked, choices=WORDS)
    alone = [qa.ask(video, question, choices=WORDS) for video, question in asked]
    assert [answer.choices for answer in together] == [answer.choices for answer in alone]
    assert [answer.text for answer in together] == [answer.text for answer in alone]


@pytest.mark.parametrize("mode", list(SlowAttention))
def test_a_batch_about_one_video_prefills_it_once(qa: VideoQA, encoded: EncodedVideo, mode: SlowAttention) -> None:
    options, questions = GenerationOptions(slow_attention=mode), (QUESTION, "What?", "Why?")
    together = qa.answer_batch([(encoded, question) for question in questions], options, choices=WORDS)
    assert [answer.tokens.reused > answer.tokens.fast for answer in together] == [False, True, True]
    for question, answer in zip(questions, together, strict=True):
        alone = qa.ask(encoded, question, options, choices=WORDS)
        expected = [choice.log_probability for choice in alone.choices]
        assert [choice.log_probability for choice in answer.choices] == pytest.approx(expected, abs=1e-4)


def test_a_special_token_in_a_choice_is_text(qa: VideoQA) -> None:
    (ids, _) = choice_token_ids(qa.checkpoint.tokenizer, ["<|im_end|>", "<image>"])
    assert not set(ids) & (set(qa.checkpoint.tokenizer.all_special_ids) | {IMAGE_TOKEN_ID})


def test_choices_the_model_would_not_say_are_warned_of(qa: VideoQA, encoded: EncodedVideo) -> None:
    """Their probabilities are one together all the same."""
    assert any("rather say something else" in warning for warning in qa.ask(encoded, QUESTION, choices=WORDS).warnings)
    assert unlikely_warning(compare(["A", "B"], [math.log(0.004), math.log(0.005)]))
    assert unlikely_warning(compare(["A", "B"], [math.log(0.004), math.log(0.007)])) == []


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        ([], "nothing to choose from"),
        (["A"], "nothing to choose from"),
        (["A", " "], "choice is empty"),
        (["A", "B", " A"], "more than once"),
        (["A", 3], "not text"),
        ("AB", "one text"),
        (["A", "\udce9"], "UTF-8"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(qa: VideoQA, choices: Sequence[str], says: str) -> None:
    """Before the video, which need not be there, is read."""
    with pytest.raises(UsageError, match=says):
        qa.ask("absent.mp4", QUESTION, choices=choices)


@pytest.mark.parametrize(
    "options", [{"temperature": 0.5}, {"max_new_tokens": 5}, {"top_p": 0.9}, {"repetition_penalty": 1.1}, {"seed": 1}]
)
def test_how_to_write_contradicts_choices(qa: VideoQA, options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        qa.ask(None, QUESTION, GenerationOptions(**options), choices=LETTERS)  # type: ignore[arg-type]


def test_a_choice_too_long_for_the_model_is_refused(qa: VideoQA) -> None:
    with pytest.raises(PromptTooLongError) as caught:
        qa.ask(None, QUESTION, choices=["A", "B" * 700])
    assert "--max-new-tokens" not in caught.value.remedy


def test_the_end_counts_only_where_one_choice_begins_another() -> None:
    assert not ends_count([[1, 2], [1, 3], [2]])
    assert ends_count([[1, 2], [1, 2, 3]])


def test_an_end_that_is_unknown_cannot_count(qa: VideoQA) -> None:
    """The sum over no end token would make every choice impossible."""
    endless = VideoQA(dataclasses.replace(qa.checkpoint, end_token_ids=frozenset()))
    with pytest.raises(UsageError, match="begins another"):
        endless.ask(None, QUESTION, choices=NESTED)
    assert endless.ask(None, QUESTION, choices=LETTERS).text in LETTERS


def test_comparing_survives_what_is_next_to_impossible() -> None:
    first, second = compare(["A", "B"], [-2000.0, -2001.0])
    assert first.probability == pytest.approx(1 / (1 + math.exp(-1)))
    assert first.probability + second.probability == pytest.approx(1)
