"""Every answer is true of its scene, is told right from wrong, and no scene is asked what it does not show clearly."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sfvqa.cli.demo import DemoVideo, load_demo_videos
from sfvqa.lab.tiny.demo import SCENES
from sfvqa.lab.tiny.questions import (
    PHRASINGS,
    REFUSAL,
    Family,
    Question,
    ask,
    describe,
    is_own_sentence,
    out_of_scope_text,
    vary,
    with_article,
)
from sfvqa.lab.tiny.scenes import Colour, DigitCard, Direction, Flash, Scene, SceneObject, Shape, random_scene

DARK = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
CIRCLE = SceneObject(Shape.CIRCLE, Colour.RED, 0.1, Direction.LEFT, (0.8, 0.2), (0.2, 0.2))
HEART = SceneObject(Shape.HEART, Colour.ORANGE, 0.1, Direction.STILL, (0.5, 0.75), (0.5, 0.75), 10.0)
SCENE = Scene((HEART, CIRCLE), DARK, Flash(Colour.GREEN, 3), DigitCard(7, 20, 1, (0.5, 0.5)))
BARE = Scene((CIRCLE,), DARK)


def answers(scene: Scene, family: Family, draws: int = 400) -> set[str]:
    rng = np.random.default_rng(1)
    found = [ask(rng, scene, family) for _ in range(draws)]
    return {question.answer for question in found if question is not None}


def of_known_shapes(found: set[str]) -> set[str]:
    return {answer for answer in found if not answer.startswith("There is no")}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (Family.COLOUR, {"The circle is red.", "The heart is orange."}),
        (Family.DIRECTION, {"The circle moves left."}),
        (Family.COUNT, {"There are two objects."}),
        (Family.ORDER, {"First comes the circle.", "Last comes the heart."}),
        (Family.POSITION, {"The circle ends in the top left."}),  # the heart ends between two corners
        (Family.FLASH, {"The screen flashes green."}),
        (Family.DIGIT, {"The digit 7 is shown."}),
        (
            Family.DESCRIBE,
            {"A red circle moves left and an orange heart appears. The screen flashes green. The digit 7 is shown."},
        ),
        (Family.OUT_OF_SCOPE, {REFUSAL}),
    ],
)
def test_answers_are_true(family: Family, expected: set[str]) -> None:
    assert of_known_shapes(answers(SCENE, family)) == expected


def test_what_is_not_there_is_said_not_to_be() -> None:
    assert answers(BARE, Family.FLASH) == {"The screen does not flash."}
    assert answers(BARE, Family.DIGIT) == {"No digit is shown."}
    assert answers(BARE, Family.ORDER) == set()
    absent = {answer for answer in answers(SCENE, Family.COLOUR) if answer.startswith("There is no")}
    assert absent
    assert not any(shape in answer for answer in absent for shape in ("circle", "heart"))
    yes_or_no = answers(SCENE, Family.PRESENCE)
    assert "Yes, there is a circle." in yes_or_no
    assert "No, there is no circle." not in yes_or_no
    assert any("no" in answer and "circle" in answer for answer in yes_or_no)  # a circle of another colour


def test_right_means_the_value_and_no_other_in_whole_words() -> None:
    question = Question(Family.COLOUR, "?", "The circle is red.", ("red",), ("blue", "green"))
    assert question.is_right("It is RED!")
    assert not question.is_right("It is red or blue.")
    assert not question.is_right("It is bored.")
    assert not question.is_right("")
    text, facts = describe(SCENE)
    whole = Question(Family.DESCRIBE, "?", text, facts, ("star",))
    assert whole.is_right(text)
    assert not whole.is_right(text.replace("left", "right"))
    assert not whole.is_right(text.replace("The digit 7 is shown.", ""))
    assert not whole.is_right(text + " A star.")


def test_every_drawn_answer_counts_as_right_and_none_of_another_scene_does() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        scene = random_scene(rng)
        for family in Family:
            question = ask(rng, scene, family)
            if question is not None:
                assert question.is_right(question.answer), question
                wrong = [other for other in question.other_values if question.is_right(f"{question.answer} {other}")]
                assert not wrong, question


def test_every_answer_is_a_sentence_of_its_own_and_nothing_garbled_is() -> None:
    rng = np.random.default_rng(6)
    answers = {q.answer for _ in range(300) for family in Family if (q := ask(rng, random_scene(rng), family))}
    assert len(answers) > 300
    assert [answer for answer in answers if not is_own_sentence(answer)] == []
    assert "Yes, there is an orange star." in answers
    for garbled in (
        "",
        "I3The star moves right.",
        "The a moves left.",
        "The circle is red",
        "Yes, there is a orange star.",
        "A orange star appears.",
        "There are four objects.",
        "The circle is red. The circle is red.",
        "IIII was trained",
        "The screen flashes white.",
    ):
        assert not is_own_sentence(garbled), garbled


def test_values_are_balanced_so_that_guessing_does_not_pay() -> None:
    rng = np.random.default_rng(4)
    for family, most in ((Family.FLASH, 0.3), (Family.DIGIT, 0.2), (Family.DIRECTION, 0.4), (Family.PRESENCE, 0.6)):
        found = [ask(rng, random_scene(rng), family) for _ in range(400)]
        counts = Counter(question.values for question in found if question is not None)
        assert counts.most_common(1)[0][1] / counts.total() < most, (family, counts)


def test_phrasings_name_what_they_ask_about() -> None:
    named = {"color": "{shape}", "direction": "{shape}", "position": "{shape}", "presence": "{name}"}
    for family, phrases in PHRASINGS.items():
        assert len(set(phrases)) == len(phrases) >= 8
        assert all(named.get(family, "") in phrase for phrase in phrases)


def test_variations_keep_the_words() -> None:
    rng = np.random.default_rng(0)
    variants = {vary(rng, "Which way does the orange star move?") for _ in range(200)}
    assert len(variants) > 5
    assert all("orange star" in variant.lower() for variant in variants)
    assert with_article("A orange star, a red one") == "An orange star, a red one"
    assert vary(rng, "???") != ""


def test_held_out_words_never_occur_in_training() -> None:
    """Evaluation of the refusal would otherwise measure memory."""
    rng = np.random.default_rng(0)
    trained = {out_of_scope_text(rng) for _ in range(4000)}
    held_out = {out_of_scope_text(rng, held_out=True) for _ in range(400)}
    assert len(trained) > 2000
    assert len(held_out) > 200
    assert not trained & held_out


@pytest.mark.parametrize("demo", load_demo_videos(), ids=lambda demo: Path(demo.path).name)
def test_the_answers_of_the_demo_videos_are_true(demo: DemoVideo) -> None:
    rng, scene = np.random.default_rng(0), SCENES[Path(demo.path).name]
    truth: dict[str, str] = {}
    for family in Family:
        for _ in range(3000 if family in (Family.PRESENCE, Family.ORDER) else 400):
            question = ask(rng, scene, family)
            if question is not None:
                truth.setdefault(question.text, question.answer)
    assert len(demo.questions) >= 5
    for text, answer in demo.questions:
        assert truth.get(text) == answer
