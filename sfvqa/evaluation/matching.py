"""Whether an answer is the expected one: equal after a normalisation that is said to the letter. No judging of meaning.

Texts are equal when they are after: Unicode NFC and case folding, every run of white space one space and none at the
ends, and no `.,;:!?…` (nor `。，；：！？`) at the end. Nothing else is forgiven: quotes, articles and digits count.

A letter names a choice when the answer is that letter alone (`A`), or the letter with a mark that closes it and
whatever follows (`A.`, `A) text`, `A: text`, `(A)`, `(A) text`), in either case. `A cat` is text, not the letter.
Where an item has choices, answer and expected answer each mean the choice whose text they are or, failing that, whose
letter they name; a letter followed by the text of another choice means none. Where it has none, a letter counts only if
the expected answer is nothing but one (`A`, `A.`, `A)`, `(A)`).
"""

import re
import unicodedata
from collections.abc import Sequence

_END_MARKS = ".,;:!?…。，；：！？"
_LETTER = re.compile(r"(?:\(([a-z])\)|([a-z])[.):]|([a-z])$)\s*(.*)", re.DOTALL)


def normalise(text: str) -> str:
    """`text` as it is compared; what is nothing but marks keeps them.

    >>> normalise("  The circle\\nmoves LEFT. ")
    'the circle moves left'
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    spaced = " ".join(folded.split())
    return spaced.rstrip(_END_MARKS + " ") or spaced


def is_match(answer: str, expected: str, choices: Sequence[str] = ()) -> bool:
    """Whether `answer` is `expected`, in the sense of this module.

    >>> is_match("(B) to the left", "b", ["right", "to the left"]), is_match("A cat", "A")
    (True, False)
    """
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


def _choice_meant(text: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that a text means, if it means one."""
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
