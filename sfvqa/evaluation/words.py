"""Text → the words that it is compared by, and the values among them: numbers, colours and the like. Pure."""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal

Words = tuple[str, ...]

_LEFT_OUT = {"a", "an", "the", "to"}
_DENIALS = {"no", "not", "none", "never", "nothing", "nobody", "neither", "nor", "without", "cannot"}
_KINDS = {
    "yes or no": "yes no",
    "true or false": "true false",
    "colour": "red orange yellow green blue purple violet pink brown black white grey cyan magenta turquoise beige",
    "direction": "left right up down clockwise counterclockwise",
    "place": "top bottom",
    "order": "first last",
    "time": "before after",
    "shape": "circle square triangle star cross heart diamond rectangle pentagon hexagon",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_SPELT = {"gray": "grey", "upward": "up", "upwards": "up", "downward": "down", "downwards": "down"}
_SPELT |= {"leftward": "left", "leftwards": "left", "rightward": "right", "rightwards": "right"}
_SPELT |= {"anticlockwise": "counterclockwise"}
_SPELT |= {"yeah": "yes", "yep": "yes", "nope": "no"}

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS = _SMALL | _TENS
_SCALES = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FIGURES = re.compile(r"-?\d+(?:[.,:]\d+)*")
_INNER_MARKS = "-'.,:"


@functools.lru_cache(maxsize=1024)  # questions and expected answers come again and again
def words_of(text: str) -> Words:
    """The words of a text in their order, numbers as digits, without case, punctuation and articles.

    A text that is nothing but articles keeps them.

    >>> words_of("The digits are “Twenty-one”, 1,000 and 3.0!")
    ('digits', 'are', '21', '1000', 'and', '3')
    """
    words: list[str] = []
    before = ""
    for word in _split(text):
        follows_tens = before in _TENS and 0 < _SMALL.get(word, 0) < 10
        if (follows_tens or word in _SCALES) and words and _NUMBER.fullmatch(words[-1]):
            number = Decimal(words[-1])
            words[-1] = _digits(number * _SCALES[word] if word in _SCALES else number + _NUMBERS[word])
        elif word in _NUMBERS:
            words.append(str(_NUMBERS[word]))
        else:
            words.append(_digits(Decimal(word)) if _NUMBER.fullmatch(word) else _SPELT.get(word, word))
        before = word
    return tuple(word for word in words if word not in _LEFT_OUT) or tuple(words)


def values_of(words: Words) -> Mapping[str, frozenset[str]]:
    """The values that words name, by their kind.

    >>> values_of(words_of("Two red circles"))["number"]
    frozenset({'2'})
    """
    found: dict[str, frozenset[str]] = {}
    for word in words:
        kind = "number" if _FIGURES.fullmatch(word) else _KIND_OF.get(word)
        if kind is not None:
            found[kind] = found.get(kind, frozenset()) | {word}
    return found


def denies(words: Words) -> bool:
    """Whether there is a word such as “not” among them."""
    return any(word in _DENIALS or word.endswith("n't") for word in words)


def holds(words: Sequence[str], phrase: Sequence[str]) -> bool:
    """Whether all words of a phrase come in `words`, one behind the other."""
    length = len(phrase)
    return any(words[start : start + length] == phrase for start in range(len(words) - length + 1))


def _split(text: str) -> list[str]:
    """Pieces between blanks and punctuation; marks stay within numbers, apostrophes within words."""
    kept = "".join(map(_kept, _folded(text).replace("’", "'").replace("−", "-")))
    pieces: list[str] = []
    for piece in kept.split():
        bare = piece.rstrip(_INNER_MARKS).lstrip("'.,:")
        if _THOUSANDS.fullmatch(bare):
            pieces.append(bare.replace(",", ""))
        elif _FIGURES.fullmatch(bare):
            pieces.append(bare)
        else:
            pieces += [part for part in (each.strip("'") for each in re.split(r"[-.,:]", bare)) if part]
    return pieces


def _folded(text: str) -> str:
    """Without case, width and ligatures; a raised 2 is no 2."""
    if text.isascii():
        return text.lower()
    raised = ("<super>", "<sub>")
    compatible = (
        char if unicodedata.decomposition(char).startswith(raised) else unicodedata.normalize("NFKC", char)
        for char in text
    )
    return unicodedata.normalize("NFC", "".join(compatible).casefold())


def _kept(char: str) -> str:
    """A letter, its marks, a digit, or a mark that may be part of a number; emoji are words."""
    category = unicodedata.category(char)
    if category[0] in "LMN" or char in _INNER_MARKS:
        return char
    return f" {char} " if category == "So" else " "


def _digits(number: Decimal) -> str:
    text = f"{number:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
