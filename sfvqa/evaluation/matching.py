"""Whether an answer is the expected one, by one of two rules that are said in words. No judging of meaning.

**exact**: texts are equal after Unicode NFC and case folding, every run of white space one space and none at the ends,
and no mark of a sentence's end (`.,;:!?…` and the full-width ones) behind. A letter names a choice when the answer is
that letter alone (`A`), or the letter with a mark that closes it and whatever follows (`A.`, `A) text`, `A: text`,
`(A)`, `(A) text`), in either case. `A cat` is text, not the letter. Where an item has choices, answer and expected
answer each mean the choice whose text they are or, failing that, whose letter they name; a letter followed by the text
of another choice means none. Where it has none, a letter counts only if the expected answer is nothing but one (`A`,
`A.`, `A)`, `(A)`).

**phrase**: besides, what `Rule.PHRASE` states; words and their values are those of `evaluation.words`. Where an item
has choices, they are the values of a kind: an answer means the one choice that it holds as a phrase, or is a phrase of.
Markdown's emphasis in an answer is left out (`**B**`), and `[B]` is `(B)`.
"""

import re
import unicodedata
from collections.abc import Sequence
from enum import StrEnum

from sfvqa.evaluation.words import (
    Words,
    as_yes_or_no,
    compares_number,
    denies,
    holds,
    none_as_zero,
    values_of,
    words_of,
)

_END_MARKS = ".,;:!?…。，；：！？"
_LETTER = re.compile(r"(?:\(([a-z])\)|([a-z])[.):]|([a-z])$)\s*(.*)", re.DOTALL)
_MARKUP = str.maketrans("[]*`", "()  ")
_IN_TURN = {"then", "before", "after", "first", "last"}
_SPOKEN_LETTER = re.compile(r"\b(?:answer|option|choice)(?: is)?:? \(?([a-z])(?=[).,:;]|$)")


class Rule(StrEnum):
    """When an answer counts as right."""

    PHRASE = "phrase"
    """The expected answer stands in the answer, or the asked part of it is the answer."""
    EXACT = "exact"
    """Both are equal."""

    @property
    def statement(self) -> str:
        """The rule in words, for people."""
        return _STATEMENTS[self]


_STATEMENTS = {
    Rule.PHRASE: (
        "An answer is right if the expected one stands in it as a whole phrase, or if it is the part of the expected "
        "one that the question asks for, and if it names no other value of that kind: number, yes or no, colour, "
        "direction, shape, place, order, choice. Values that the question gives do not count, except those between "
        "which it lets choose. Case, punctuation, articles, plurals, how a number is written (2, two, 2.0; third, "
        "3rd) and the order of a list that is not asked for do not count; “not” and “or” do. From left to right is "
        "right. None is 0 where the question is how many, and “It does not move.” is no where it is whether it does. "
        "A letter names a choice: B, B., (B) …, Answer: B."
    ),
    Rule.EXACT: (
        "An answer is right if it equals the expected one, but for case, white space and marks at the end. A letter "
        "names a choice: B, B., (B) …"
    ),
}


def is_match(
    answer: str, expected: str, choices: Sequence[str] = (), *, question: str = "", rule: Rule = Rule.PHRASE
) -> bool:
    """Whether `answer` is `expected` by a rule; what the `question` says need not be said again.

    >>> is_match("The digit 3 is shown.", "three"), is_match("It is red or blue.", "red")
    (True, False)
    >>> is_match("left", "The circle moves left.", question="Where does the circle go?")
    True
    """
    if _is_equal(answer, expected, choices):
        return True
    if rule is Rule.EXACT:
        return False
    answer = answer.translate(_MARKUP)
    if choices and (wanted := _choice_meant(expected, choices)) is not None:
        return wanted == _choice_named(answer, choices)
    letter, rest = _letter_of(expected)
    named, said = (spoken, "") if (spoken := _spoken_letter(answer)) else _letter_of(answer)
    if letter is not None and named is not None:
        return letter == named and (not rest or not said or _is_value(said, rest, question))
    return _is_value(answer, rest if letter and rest else expected, question)


def normalise(text: str) -> str:
    """`text` as it is compared by the exact rule; what is nothing but marks keeps them.

    >>> normalise("  The circle\\nmoves LEFT. ")
    'the circle moves left'
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    spaced = " ".join(folded.split())
    return spaced.rstrip(_END_MARKS + " ") or spaced


def _is_value(answer: str, expected: str, question: str) -> bool:
    """Whether one is a phrase of the other, with nothing that speaks against it."""
    said, wanted = _compared(words_of(answer), words_of(expected), words_of(question))
    if not said or not wanted or any(test(said) != test(wanted) for test in (denies, compares_number, _leaves_open)):
        return False
    said_values, wanted_values, given_values = values_of(said), values_of(wanted), values_of(words_of(question))
    asked = False
    for kind, values in wanted_values.items():
        given = given_values.get(kind, frozenset())
        found = said_values.get(kind, frozenset())
        if found - values - (frozenset() if given & values else given):
            return False
        if given != values:
            if not values <= found:
                return False
            asked = True
    return holds(said, wanted) or _is_list(said, wanted, words_of(question)) or (asked and holds(wanted, said))


def _compared(said: Words, wanted: Words, question: Words) -> tuple[Words, Words]:
    """With “none” as the number that it is, and a sentence as “yes” or “no” where the other has that word."""
    said, wanted = none_as_zero(said, question), none_as_zero(wanted, question)
    if "yes or no" in values_of(wanted):
        return as_yes_or_no(said, question), wanted
    if "yes or no" in values_of(said):
        return said, as_yes_or_no(wanted, question)
    return said, wanted


def _leaves_open(words: Words) -> bool:
    return "or" in words


def _is_list(said: Words, wanted: Words, question: Words) -> bool:
    """Whether values of one kind are wanted, joined by “and”, in whichever order; they are said, and no others."""
    values = values_of(wanted)
    if "and" not in wanted or "and" not in said or "number" in values or len(values) != 1:
        return False
    in_turn = _IN_TURN & {*said, *wanted} or {"and", "order"} & set(question)
    return not in_turn and set(wanted) == {"and"}.union(*values.values())


def _is_equal(answer: str, expected: str, choices: Sequence[str]) -> bool:
    if normalise(answer) == normalise(expected):
        return True
    if choices:
        meant = _choice_meant(answer, choices)
        return meant is not None and meant == _choice_meant(expected, choices)
    letter, rest = _letter_of(expected)
    return letter is not None and not rest and letter == _letter_of(answer)[0]


def _letter_of(text: str) -> tuple[str | None, str]:
    """The letter that a text names, None where it names none, and what follows it."""
    found = _LETTER.match(" ".join(text.split()).casefold())
    if found is None:
        return None, text
    return found[1] or found[2] or found[3], normalise(found[4])


def _spoken_letter(text: str) -> str | None:
    """The one letter of phrases such as “the answer is B”."""
    letters = set(_SPOKEN_LETTER.findall(" ".join(text.split()).casefold()))
    return letters.pop() if len(letters) == 1 else None


def _choice_meant(text: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text is or whose letter it names, if there is one."""
    texts = [normalise(choice) for choice in choices]
    if normalise(text) in texts:
        return texts.index(normalise(text))
    letter, rest = _letter_of(text)
    if letter is None:
        return None
    place = ord(letter) - ord("a")
    if place >= len(texts) or (rest in texts and texts[place] != rest):
        return None
    return place


def _choice_named(text: str, choices: Sequence[str]) -> int | None:
    """The place of the one choice that stands in a text, or in which the text stands, or whose letter is spoken of."""
    letter = _spoken_letter(text)
    if letter is not None or _letter_of(text)[0] is not None:
        return _choice_meant(letter or text, choices)
    said = words_of(text)
    phrases: list[Words] = [words_of(choice) for choice in choices]
    named = [each for each in dict.fromkeys(phrases) if each and said and (holds(said, each) or holds(each, said))]
    widest = [phrase for phrase in named if not any(holds(other, phrase) for other in named if other != phrase)]
    if len(widest) != 1 or denies(widest[0]) != denies(said) or ("or" in widest[0]) != ("or" in said):
        return None
    return phrases.index(widest[0])
