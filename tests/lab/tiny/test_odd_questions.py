"""Odd texts are none of the plain questions, come in all lengths, and a slip tells whether it hit a name."""

import numpy as np

from sfvqa.lab.tiny.conversations import HARD, as_typed, draw_conversation
from sfvqa.lab.tiny.odd_questions import LONGEST, NAMES, PREAMBLES, is_plain, lengthened, odd_text, with_slip
from sfvqa.lab.tiny.questions import PHRASINGS, REFUSAL, Family, Question
from sfvqa.lab.tiny.scenes import random_scene


def test_odd_texts_are_many_and_none_is_a_plain_question() -> None:
    rng = np.random.default_rng(0)
    drawn = [odd_text(rng) for _ in range(2000)]
    assert len(set(drawn)) > 1700
    assert not any(is_plain(text) for text in drawn)
    assert all(0 < len(text) <= LONGEST for text in drawn)
    assert min(map(len, drawn)) < 4
    assert max(map(len, drawn)) > 1500


def test_every_phrasing_is_plain_with_any_names_and_marks() -> None:
    for phrases in PHRASINGS.values():
        for phrase in phrases:
            text = phrase.format(shape="red heart", name="white star", a="circle", b="cross")
            assert is_plain(text.upper().rstrip("?."))
    assert not is_plain("What comes first, the or the?")
    assert not is_plain("Is there a hexagon?")


def test_a_slip_changes_one_word_and_says_whether_it_was_a_name() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        text = "What colour is the triangle at the end?"
        slipped, hit = with_slip(rng, text)
        differing = [old for old, new in zip(text.split(), slipped.split(), strict=True) if old != new]
        assert len(differing) <= 1
        assert hit == bool(differing and differing[0].strip("?") in NAMES)
        hits += hit
    assert 40 < hits < 150
    assert with_slip(rng, "a b c") == ("a b c", False)


def test_a_question_with_a_slip_in_a_name_is_refused_and_keeps_its_answer_otherwise() -> None:
    rng = np.random.default_rng(2)
    question = Question(Family.COLOUR, "What colour is the triangle?", "The triangle is red.", ("red",))
    seen = {True: 0, False: 0}
    for _ in range(3000):
        typed = as_typed(rng, question, HARD)
        known = "triangle" in typed.text
        seen[known] += typed.text != question.text
        assert typed.answer == (question.answer if known else REFUSAL), typed
        assert known or "triangle" not in typed.text
    assert seen[True] > 50
    assert seen[False] > 10


def test_lengthening_keeps_the_question() -> None:
    rng = np.random.default_rng(3)
    text = lengthened(rng, "Where is the heart?")
    assert text.endswith(" Where is the heart?")
    assert any(text.startswith(preamble) for preamble in PREAMBLES)


def test_a_row_refuses_once_at_most() -> None:
    """A refusal that stands in a row already would teach to copy it."""
    rng = np.random.default_rng(4)
    refused = 0
    for _ in range(400):
        answers = [question.answer for question in draw_conversation(rng, random_scene(rng), HARD)]
        assert len(set(answers)) == len(answers)
        refused += REFUSAL in answers
    assert 80 < refused < 200
