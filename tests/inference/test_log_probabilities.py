"""How likely the model found each token of an answer: what one pass over prompt and answer says, however it came."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sfvqa.cli.options import BUNDLED_VIDEOS
from sfvqa.errors import UsageError
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import prompt_for
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.schema import JsonSchema
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model.decode_step import StaticDecode

FLASH, DIGIT, DESCRIBE = "What colour does the screen flash?", "Which digit is shown?", "Describe the video."
QUESTIONS = (FLASH, DIGIT, DESCRIBE)
ASKED = GenerationOptions(log_probabilities=True)


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def shapes(tiny: VideoQA) -> EncodedVideo:
    return tiny.encode(BUNDLED_VIDEOS / "shapes.mp4")


def by_one_pass(qa: VideoQA, encoded: EncodedVideo | None, answer: Answer, history: Any = ()) -> list[float]:
    """The log-probabilities of an answer's tokens, all at once."""
    checkpoint = qa.checkpoint
    assert answer.log_probabilities is not None
    prompt = prompt_for(
        checkpoint.tokenizer, encoded, answer.question, PromptOptions(), config=checkpoint.model.config,
        num_new_tokens=256, history=history,
    ).token_ids  # fmt: skip
    said = [token.token_id for token in answer.log_probabilities]
    with torch.inference_mode():
        visual_tokens = [encoded.visual_tokens if encoded else None]
        logits = checkpoint.model(torch.tensor([prompt + said]), visual_tokens=visual_tokens).logits[0]
    chances = logits.float().log_softmax(dim=-1)[len(prompt) - 1 : -1]
    return [float(row[token_id]) for row, token_id in zip(chances, said, strict=True)]


def check(qa: VideoQA, encoded: EncodedVideo | None, answer: Answer, history: Any = ()) -> None:
    assert answer.log_probabilities is not None
    assert len(answer.log_probabilities) == answer.tokens.new > 1
    assert "".join(token.text for token in answer.log_probabilities) == answer.text
    found = [token.log_probability for token in answer.log_probabilities]
    assert found == pytest.approx(by_one_pass(qa, encoded, answer, history), abs=1e-4)


@pytest.mark.parametrize("static_decode", [StaticDecode.OFF, StaticDecode.ON])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"max_new_tokens": 4},
        {"temperature": 3.0, "top_k": 5, "seed": 2, "max_new_tokens": 12},
        {"repetition_penalty": 1.5},
    ],
)
def test_an_answer_s_tokens_are_as_likely_as_one_pass_says(
    tiny: VideoQA, shapes: EncodedVideo, more: dict[str, Any], static_decode: StaticDecode
) -> None:
    """A temperature, a penalty or a seed changes which token is taken, not how likely the model found it."""
    options = replace(ASKED, static_decode=static_decode, **more)
    answer = tiny.ask(shapes, FLASH, options)
    check(tiny, shapes, answer)
    assert answer.text == tiny.ask(shapes, FLASH, replace(options, log_probabilities=False)).text


def test_in_a_batch_each_answer_has_its_own(tiny: VideoQA, shapes: EncodedVideo) -> None:
    asked = [*((shapes, question) for question in QUESTIONS), (None, FLASH)]
    for (encoded, _), answer in zip(asked, tiny.answer_batch(asked, ASKED), strict=True):
        check(tiny, encoded, answer)


def test_from_a_kept_prompt_and_in_a_chat_they_are_the_same(tiny: VideoQA, shapes: EncodedVideo) -> None:
    for stream in tiny.stream_all(shapes, QUESTIONS, ASKED):
        list(stream)
        check(tiny, shapes, stream.answer)
    chat = tiny.chat(shapes, ASKED)
    first = chat.ask(FLASH)
    check(tiny, shapes, chat.ask(DIGIT), history=[(FLASH, first.text)])


def test_a_schema_allows_few_tokens_and_changes_no_likelihood(tiny: VideoQA, shapes: EncodedVideo) -> None:
    schema = JsonSchema('{"enum": ["red", "green"]}')
    answer = tiny.ask(shapes, DIGIT, replace(ASKED, schema=schema))
    check(tiny, shapes, answer)
    assert answer.log_probabilities is not None
    assert min(token.log_probability for token in answer.log_probabilities) < -5  # nothing tiny would have said


def test_the_sum_is_what_choices_are_compared_by(tiny: VideoQA, shapes: EncodedVideo) -> None:
    free = tiny.ask(shapes, FLASH, ASKED)
    assert free.finish_reason is FinishReason.STOP
    assert free.log_probabilities is not None
    chosen = tiny.ask(shapes, FLASH, choices=[free.text, "The screen flashes red."]).choices[0]
    total = sum(token.log_probability for token in free.log_probabilities)
    assert total == pytest.approx(chosen.log_probability, abs=1e-4)


def test_a_character_of_several_tokens_is_the_text_of_its_last(qa: VideoQA, encoded: EncodedVideo) -> None:
    """Random weights write parts of characters, which are no text until they are whole, or the answer ends."""
    answer = qa.ask(encoded, "Why?", replace(ASKED, max_new_tokens=40))
    check(qa, encoded, answer)


def test_they_come_back_from_json_and_are_none_unasked(tiny: VideoQA, shapes: EncodedVideo) -> None:
    answer = tiny.ask(shapes, FLASH, ASKED)
    assert Answer.from_dict(answer.to_dict()) == answer
    assert tiny.ask(shapes, FLASH).log_probabilities is None
    earlier = {name: value for name, value in answer.to_dict().items() if name != "log_probabilities"}
    assert Answer.from_dict(earlier).log_probabilities is None


def test_choices_have_their_own(tiny: VideoQA, shapes: EncodedVideo) -> None:
    with pytest.raises(UsageError, match="log_probabilities is True"):
        tiny.ask(shapes, FLASH, ASKED, choices=["a", "b"])
