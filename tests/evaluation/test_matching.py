"""What counts as the expected answer, and what does not, by either rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.evaluation.matching import Rule, is_match, normalise
from sfvqa.evaluation.words import words_of

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
def test_everything_else_counts_where_equality_is_asked_for(answer: str, expected: str) -> None:
    assert not is_match(answer, expected, rule=Rule.EXACT)


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
    assert not is_match(answer, expected, CHOICES, rule=Rule.EXACT)


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
    assert not is_match(answer, expected, rule=Rule.EXACT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The digit 3 is shown.", "3"),
        ("The digit 3 is shown.", "three"),
        ("There are two objects.", "Two"),
        ("There are two objects.", "2.0"),
        ("The triangle is red.", "The triangle"),
        ("A red triangle", "the triangle"),
        ("No, there is no red circle.", "No"),
        ("It moves left.", "to the left"),
        ("1000 people, at most", "1,000"),
        ("Twenty-one cars", "21"),
        ("About 200.", "two hundred"),
        ("It is −3 °C", "-3"),
        ("“Left”!", "left"),
        ("**left**", "left"),
        ("Color: gray", "grey"),
        ("The letter X is shown.", "X"),
        ("The answer is B.", "B"),
        ("Answer: (B)", "b"),
        ("**B**", "B"),
        ("[B]", "B"),
        ("Yeah", "yes"),
        ("Nope.", "no"),
        ("blue", "B) blue"),
        ("B", "B) blue"),
        ("Es ist STRASSE drei", "straße"),
        ("３ cats", "3"),
        ("👍 all", "👍"),
    ],
)
def test_the_expected_answer_may_stand_in_a_sentence(answer: str, expected: str) -> None:
    """A report of 14 right answers said 0 %: the manifest had "3", and the model answers in sentences."""
    assert is_match(answer, expected)
    assert not is_match(answer, expected, rule=Rule.EXACT)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("red or blue", "red"),
        ("It is red. Or blue.", "red"),
        ("a cat or a dog", "cat"),
        ("The circle is red and the square is blue.", "red"),
        ("not red", "red"),
        ("It isn't red.", "red"),
        ("red", "not red"),
        ("Yes and no", "yes"),
        ("I cannot answer that.", "no"),
        ("There are 2 or 3", "3"),
        ("3-5", "3"),
        ("3*5", "35"),
        ("nope", "yes"),
        ("yeah", "no"),
        ("3.5", "3"),
        ("1:30", "1"),
        ("-3", "3"),
        ("13", "3"),
        ("3²", "32"),
        ("two hundred", "2"),
        ("rectangle", "triangle"),
        ("a heart or a star", "heart"),
        ("A cat", "A"),
        ("The answer is a circle", "A"),
        ("A) left", "B"),
        ("A) left", "B) left"),
        ("की", "के"),
        ("", "left"),
        ("left", ""),
        ("the", "the left"),
        ("?", "!"),
    ],
)
def test_what_names_something_else_is_wrong(answer: str, expected: str) -> None:
    assert not is_match(answer, expected)


@pytest.mark.parametrize(
    ("question", "expected", "right", "wrong"),
    [
        ("Which digit is shown?", "The digit 3 is shown.", ["3", "three", "digit 3"], ["digit", "is shown", "4", "33"]),
        ("How many objects are there?", "There are two objects.", ["2", "Two.", "two objects"], ["objects", "3"]),
        ("What colour is the circle?", "The circle is red.", ["red", "is red"], ["circle", "blue", "red or blue"]),
        ("Which way does the red circle move?", "The red circle moves left.", ["left", "moves left"], ["red", "right"]),
        ("Which shape comes first?", "First comes the circle.", ["the circle", "circle"], ["first", "the square"]),
        ("Is there a red star?", "No, there is no red star.", ["no", "No."], ["yes", "red star", "star"]),
        ("Is the circle red?", "Yes, the circle is red.", ["yes", "Yes."], ["no", "red", "circle"]),
        ("Is it red or blue?", "red", ["red", "It is red."], ["red or blue", "red blue", "not red"]),
        ("What is left of the blue square?", "red circle", ["The red circle is left of the blue square."], ["blue"]),
        ("How many in the first 5 seconds?", "3", ["In the first 5 seconds there are 3."], ["5", "3, then 2"]),
    ],
)
def test_what_the_question_says_need_not_be_said_again(
    question: str, expected: str, right: list[str], wrong: list[str]
) -> None:
    """And is no other value of its kind, unless the question offers it."""
    assert [answer for answer in right if not is_match(answer, expected, question=question)] == []
    assert [answer for answer in wrong if is_match(answer, expected, question=question)] == []


@pytest.mark.parametrize(
    "answer",
    ["It goes right.", "The answer is (B).", "right, I think", "Option B: right", "**B**", "**B.** right", "[B]"],
)
def test_a_choice_may_stand_in_a_sentence(answer: str) -> None:
    assert is_match(answer, "B", CHOICES)
    assert is_match(answer, "right", CHOICES)
    assert not is_match(answer, "up", CHOICES)


@pytest.mark.parametrize("answer", ["right or up", "right and up", "not right", "(A) right", "The answer is C.", "it"])
def test_one_choice_must_be_meant(answer: str) -> None:
    assert not is_match(answer, "right", CHOICES)


def test_of_choices_that_hold_one_another_the_widest_is_meant() -> None:
    assert is_match("It is dark red.", "dark red", ("red", "dark red"))
    assert not is_match("It is dark red.", "red", ("red", "dark red"))


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text() | st.text(alphabet="0123456789.,:-' two hundred"))
def test_words_of_words_are_the_same(text: str) -> None:
    words = words_of(text)
    assert all(word == word.strip() != "" for word in words)


@given(st.text(), st.text(), st.lists(st.text(max_size=3), max_size=4), st.text())
def test_equal_answers_are_right_by_both_rules(one: str, other: str, choices: list[str], question: str) -> None:
    assert is_match(one, one, choices, rule=Rule.EXACT)
    if is_match(one, other, choices, rule=Rule.EXACT):
        assert is_match(one, other, choices, question=question)
    if choices:
        exact = is_match(one, other, choices, rule=Rule.EXACT)
        assert exact == is_match(other, one, choices, rule=Rule.EXACT)
