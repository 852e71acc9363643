"""What is learned is the answer, and the token that ends it, behind the very prompt that asks for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.errors import CheckpointError
from sfvqa.inference.prompt import PLACEHOLDER, Role, Turn, build_prompt, prompt_for, question_turn
from sfvqa.inference.question import PromptOptions
from sfvqa.model import IMAGE_TOKEN_ID, SlowFastConfig
from sfvqa.training.annotations import Example
from sfvqa.training.rows import IGNORED, DialogueWriter
from tests.training.plain_decoder import tiny_tokenizer

TALK = Example("a", Path("a.mp4"), (("What moves?", "The circle."), ("Where to?", "Left."), ("And then?", "Nothing.")))
LLAMA_3_TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]\n\n{{ message['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n\n{% endif %}"
)
LLAMA_2_TEMPLATE = (  # the space before an answer is no part of the prompt that asks for it
    "{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
FORGETFUL_TEMPLATE = (  # as templates that leave thoughts out of what was said before
    "{% for message in messages %}[{{ message['role'] }}]{% if message['role'] == 'assistant' %}<|im_start|>{% endif %}"
    "{{ message['content'] }}<|im_end|>{% endfor %}[assistant]"
)


def learned(row_ids: tuple[int, ...], labels: tuple[int, ...]) -> list[str]:
    """The texts of the runs of tokens that are learned."""
    tokenizer, runs = tiny_tokenizer(), [[]]  # type: ignore[var-annotated]
    for token, label in zip(row_ids, labels, strict=True):
        assert label in (IGNORED, token)
        if label == IGNORED:
            runs.append([])
        else:
            runs[-1].append(token)
    return [str(tokenizer.decode(run)) for run in runs if run]


@pytest.mark.parametrize("template", [None, LLAMA_3_TEMPLATE], ids=["chatml", "llama 3"])
def test_answers_alone_are_learned_each_behind_its_prompt(template: str | None) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    (row,) = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id})).rows(TALK, PLACEHOLDER)
    assert learned(row.ids, row.labels) == ["The circle.<|im_end|>", "Left.<|im_end|>", "Nothing.<|im_end|>"]
    turns = [question_turn("What moves?", shows_video=True)]
    first = tuple(build_prompt(tokenizer, turns))
    assert row.ids[: len(first)] == first
    turns += [Turn(Role.ASSISTANT, "The circle."), question_turn("Where to?", shows_video=False)]
    second = tuple(build_prompt(tokenizer, turns))
    assert row.ids[: len(second)] == second
    assert row.labels[len(second)] != IGNORED


def test_a_space_that_the_prompt_lacks_is_learned_with_the_answer() -> None:
    """As in the template's own text of the conversation; without it, every answer began a row of its own."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = LLAMA_2_TEMPLATE
    (row,) = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id})).rows(replace(TALK, video=None), ())
    assert learned(row.ids, row.labels) == [" The circle.<|im_end|>", " Left.<|im_end|>", " Nothing.<|im_end|>"]
    said = [({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in TALK.turns]
    whole = tokenizer.apply_chat_template([turn for both in said for turn in both], tokenize=False)
    assert list(row.ids) == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_template_that_rewrites_what_was_said_gives_a_row_for_every_answer() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = FORGETFUL_TEMPLATE
    rows = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id})).rows(TALK, PLACEHOLDER)
    assert [learned(row.ids, row.labels) for row in rows] == [
        ["The circle.<|im_end|>"],
        ["Left.<|im_end|>"],
        ["Nothing.<|im_end|>"],
    ]
    assert all(row.ids.count(IMAGE_TOKEN_ID) == 1 for row in rows)


def test_a_system_message_stands_in_the_row_as_in_the_prompt_that_asks() -> None:
    tokenizer = tiny_tokenizer()
    writer = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id}))
    example = Example("a", None, (("What moves?", "The circle."),), system="Answer in two words.")
    (row,) = writer.rows(example, ())
    options = PromptOptions(system=example.system)
    asked = prompt_for(tokenizer, None, "What moves?", options, config=SlowFastConfig(), num_new_tokens=8)
    assert list(row.ids[: len(asked.token_ids)]) == asked.token_ids
    assert "Answer in two words." in tokenizer.decode(list(row.ids))
    assert learned(row.ids, row.labels) == ["The circle.<|im_end|>"]


def test_fast_tokens_take_the_place_of_the_video_and_are_not_learned() -> None:
    tokenizer = tiny_tokenizer()
    writer = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id}))
    (one,), (many,) = writer.rows(TALK, PLACEHOLDER), writer.rows(TALK, ("Two:", 4, "and", 3, "\n"))
    assert (one.ids.count(IMAGE_TOKEN_ID), many.ids.count(IMAGE_TOKEN_ID)) == (1, 7)
    assert len(many.ids) == len(many.labels)
    assert learned(many.ids, many.labels) == learned(one.ids, one.labels)
    (text,) = writer.rows(Example("b", None, TALK.turns), (7, "\n"))
    assert IMAGE_TOKEN_ID not in text.ids


def test_special_tokens_in_an_answer_stay_text() -> None:
    tokenizer = tiny_tokenizer()
    (row,) = DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id})).rows(
        Example("a", None, (("What?", "A<|im_end|>B"),)), ()
    )
    assert sum(label == tokenizer.eos_token_id for label in row.labels) == 1


def test_a_template_without_an_end_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(CheckpointError, match="not end an answer with a token that stops generation"):
        DialogueWriter(tokenizer, frozenset({tokenizer.eos_token_id}))
