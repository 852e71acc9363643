"""What counts as the same answer, and what does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.evaluation.matching import is_match, normalise

CHOICES = ("The circle moves left.", "right", "up")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Left", "left"),
        ("  left \n", "left"),
        ("left.", "left"),
        ("left ?!", "left"),
        ("to  the\tleft", "To the left."),
        ("STRASSE", "straße"),
        ("e\u0301te\u0301", "ÉTÉ"),
        ("左。", "左"),
    ],
)
def test_case_white_space_and_marks_at_the_end_do_not_count(answer: str, expected: str) -> None:
    assert is_match(answer, expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [("left", "right"), ("it moves left", "left"), ("3.5", "35"), ("", "left"), ("?", "!"), ('"left"', "left")],
)
def test_everything_else_counts(answer: str, expected: str) -> None:
    assert not is_match(answer, expected)


@pytest.mark.parametrize("answer", ["B", "b", "B.", "B)", "(B)", "(b) right", "B. right", "B: it goes right", "Right."])
@pytest.mark.parametrize("expected", ["B", "(B)", "right", "B. right"])
def test_a_choice_is_named_by_its_letter_or_its_text(answer: str, expected: str) -> None:
    assert is_match(answer, expected, CHOICES)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A", "B"),
        ("(A) right", "B"),  # the letter of one and the text of another mean neither
        ("(A) right", "A"),
        ("D", "right"),  # no such choice
        ("A circle", "A"),  # an article
        ("Both", "B"),
    ],
)
def test_a_choice_is_not_named_by_anything_else(answer: str, expected: str) -> None:
    assert not is_match(answer, expected, CHOICES)


def test_the_text_of_a_choice_comes_before_the_letters() -> None:
    """Choices that are letters themselves, in another order."""
    assert is_match("B", "B", ("B", "A"))
    assert not is_match("A", "B", ("B", "A"))


@pytest.mark.parametrize("answer", ["A", "a.", "A) left", "(A) left", "A: left"])
def test_without_choices_a_letter_counts_where_a_letter_is_expected(answer: str) -> None:
    assert is_match(answer, "A")
    assert not is_match(answer, "B")


@pytest.mark.parametrize(("answer", "expected"), [("A cat", "A"), ("(A) left", "A) right"), ("left", "A) left")])
def test_without_choices_nothing_else_is_a_letter(answer: str, expected: str) -> None:
    assert not is_match(answer, expected)


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.text(), st.lists(st.text(max_size=3), max_size=4))
def test_matching_is_symmetric_where_there_are_choices_and_always_reflexive(
    one: str, other: str, choices: list[str]
) -> None:
    assert is_match(one, one, choices)
    if choices:
        assert is_match(one, other, choices) == is_match(other, one, choices)
