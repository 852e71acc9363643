"""Text → the words that it is compared by, and the values among them: numbers, colours and the like. Pure."""

import functools
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal

Words = tuple[str, ...]

_ARTICLES = {"a", "an", "the"}
_LEFT_OUT = {*_ARTICLES, "to"}
_DENIALS = {"no", "not", "none", "never", "nothing", "nobody", "neither", "nor", "without", "cannot"}
_NONE = {"none", "nobody"}
# As `words_of` has them, so that “does” is “doe”.
_AUXILIARIES = {"is", "are", "was", "were", "do", "doe", "did", "has", "have", "had", "can", "could", "will", "would"}
_PRONOUNS = {"it", "there", "they", "he", "she", "this", "that", "these", "those", "any", "at", "all"}
_OF_SUBJECT = {"it", "they", "he", "she"}
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
_SPELT |= {"1st": "first", "2nd": "second", "3rd": "third", "4th": "fourth", "5th": "fifth", "6th": "sixth"}
_SPELT |= {"7th": "seventh", "8th": "eighth", "9th": "ninth", "10th": "tenth"}
_SPELT_APART = {("counter", "clockwise"): "counterclockwise", ("anti", "clockwise"): "counterclockwise"}
_SPELT_APART |= {("no", "one"): "nobody"}
_TIMES = {"once": ("one", "time"), "twice": ("two", "times"), "thrice": ("three", "times")}
_SIDES = {"left", "right", "top", "bottom"}

_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
}  # fmt: skip
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS = _SMALL | _TENS
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 1_000_000}
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_FIGURES = re.compile(r"-?\d+(?:[.,:]\d+)*")
_INNER_MARKS = "-'.,:"


@functools.lru_cache(maxsize=1024)  # questions and expected answers come again and again
def words_of(text: str) -> Words:
    """The words of a text in their order, in the singular, numbers as digits, without case, punctuation and articles.

    Of a way from one side to another the end is left. A text that is nothing but articles keeps them.

    >>> words_of("The digits are “Twenty-one”, 1,000 and 3.0!")
    ('digit', 'are', '21', '1000', 'and', '3')
    """
    words = _without_starts([_singular(word) for word in _with_numbers(_respelt(_split(text)))])
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


def compares_number(words: Words) -> bool:
    """Whether a number is compared with, as in “more than 3”, which is not 3."""
    return any(one == "than" and _FIGURES.fullmatch(other) for one, other in itertools.pairwise(words))


def none_as_zero(words: Words, question: Words) -> Words:
    """“none”, and “no” before what the question asks for or alone, as the number that they mean after “How many”.

    >>> none_as_zero(words_of("There are no circles."), words_of("How many circles are there?"))
    ('there', 'are', '0', 'circle')
    """
    if not holds(question, ("how", "many")) or "number" in values_of(words):
        return words
    following = [*words[1:], None]
    counts = [
        word in _NONE or (word == "no" and (after is None or after in question))
        for word, after in zip(words, following, strict=True)
    ]
    if not any(counts):
        return words
    counted = tuple("0" if is_zero else word for word, is_zero in zip(words, counts, strict=True))
    return counted[1:] if counted[0] == "no" else counted  # No, there are none.


def as_yes_or_no(words: Words, question: Words) -> Words:
    """“yes” or “no” for a sentence that says what the question asks whether it is so, or that it is not.

    >>> as_yes_or_no(words_of("It doesn't move."), words_of("Does it move?"))
    ('no',)
    """
    if not words or len(question) < 2 or question[0] not in _AUXILIARIES or "or" in question:
        return words
    if words[0] in _AUXILIARIES or "yes or no" in values_of(words):  # a question again, or an answer as it is
        return words
    if not denies(words) and not any(map(_is_auxiliary, words)) and words[0] not in _PRONOUNS:
        return words
    said, asked = ([word for word in each if not _is_filling(word)] for each in (words, question))
    is_of_subject = words[0] in _OF_SUBJECT and question[1] not in _PRONOUNS and len(asked) == 2
    if said and said != (asked[1:] if is_of_subject and len(said) == 1 else asked):
        return words
    return ("no",) if denies(words) else ("yes",)


def _is_auxiliary(word: str) -> bool:
    return word in _AUXILIARIES or word.endswith("n't")


def _is_filling(word: str) -> bool:
    return _is_auxiliary(word) or word in _PRONOUNS or word in _DENIALS


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


def _respelt(pieces: Sequence[str]) -> list[str]:
    """In one spelling each."""
    words: list[str] = []
    for piece in pieces:
        word = _SPELT.get(piece, piece)
        together = _SPELT_APART.get((words[-1], word)) if words else None
        if together is None:
            words += _TIMES.get(word, (word,))
        else:
            words[-1] = together
    return words


def _with_numbers(words: Sequence[str]) -> list[str]:
    """With every number in figures."""
    found: list[str] = []
    place = 0
    while place < len(words):
        number, length = _number_at(words, place)
        found.append(words[place] if number is None else _digits(number))
        place += length
    return found


def _number_at(words: Sequence[str], start: int) -> tuple[Decimal | None, int]:
    """The number that begins at a place, if there is one, and how many words it takes."""
    whole, part = Decimal(0), _begun_number(words, start)
    if part is None:
        return None, 1
    end = start + 1
    while end < len(words):
        before, word = words[end - 1], words[end]
        skipped = int(word == "and" and before in _SCALES and end + 1 < len(words))
        value = _NUMBERS.get(words[end + skipped], 0)
        if word in _SCALES:
            part *= _SCALES[word]
            if _SCALES[word] >= 1000:
                whole, part = whole + part, Decimal(0)
            end += 1
        elif 0 < value < (10 if before in _TENS else 100 if before in _SCALES else 0):
            part += value
            end += skipped + 1
        else:
            break
    return whole + part, end - start


def _begun_number(words: Sequence[str], start: int) -> Decimal | None:
    word, following = words[start], words[start + 1 : start + 2]
    if word in _NUMBERS:
        return Decimal(_NUMBERS[word])
    if _NUMBER.fullmatch(word):
        return Decimal(word)
    return Decimal(1) if word == "a" and following and following[0] in _SCALES else None


def _without_starts(words: Sequence[str]) -> list[str]:
    """Where something goes from one side to another, without the first: the answer to where it goes is the other."""
    bare = [word for word in words if word not in _ARTICLES]
    for place in range(len(bare) - 3, -1, -1):
        one, to, other = bare[place : place + 3]
        around = {*bare[place - 1 : place], *bare[place + 3 : place + 4]}
        if to == "to" and one in _SIDES and other in _SIDES and not around & _SIDES:
            begin = place - 1 if bare[place - 1 : place] == ["from"] else place
            return [*bare[:begin], *bare[place + 2 :]]
    return list(words)


def _singular(word: str) -> str:
    """A noun without the ending of its plural, if roughly: all that matters is that both come out alike."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "'s")):
        return word
    if word.endswith(("sses", "xes", "ches", "shes")):
        return word[:-2]
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > 4 else word[:-1]


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
