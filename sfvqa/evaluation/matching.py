"""Match an answer with the expected one by one of two rules stated in words. Meaning is not judged.

**exact**: texts are equal after Unicode NFC and case folding, every run of white space one space and none at the ends,
and no mark of a sentence's end (`.,;:!?…` and the full-width ones) behind. A letter names a choice when the answer is
that letter alone (`A`), or the letter with a mark that closes it and whatever follows (`A.`, `A) text`, `A: text`,
`(A)`, `(A) text`), in either case. `A cat` is text, not the letter. Where an item has choices, answer and expected
answer each mean the choice whose text they are or, failing that, whose letter they name; a letter followed by the text
of another choice means none. Where it has none, a letter counts only if the expected answer is nothing but one (`A`,
`A.`, `A)`, `(A)`).

**phrase**: besides, what `Rule.PHRASE` states; words and their values are those of `words_of`. Where an item
has choices, they are the values of a kind: an answer means the one choice that it holds as a phrase, or is a phrase of.
Markdown's emphasis in an answer is left out (`**B**`), and `[B]` is `(B)`.
"""

import functools
import itertools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum

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
    """Whether `words` contains a phrase as consecutive words."""
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
    if not words or not holds(question, ("how", "many")) or "number" in values_of(words):
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
    filling = {*_PRONOUNS, *_DENIALS, *filter(_is_auxiliary, (*words, *question))}
    said, asked = ([word for word in each if word not in filling] for each in (words, question))
    is_of_subject = words[0] in _OF_SUBJECT and question[1] not in _PRONOUNS and len(asked) == 2
    if said and said != (asked[1:] if is_of_subject and len(said) == 1 else asked):
        return words
    return ("no",) if denies(words) else ("yes",)


def _is_auxiliary(word: str) -> bool:
    return word in _AUXILIARIES or word.endswith("n't")


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
    """The number that starts at a position, if any, and how many words it spans."""
    word, following = words[start], [*words[start + 1 : start + 2]]
    if word in _NUMBERS or _NUMBER.fullmatch(word):
        part = Decimal(_NUMBERS.get(word, word))
    elif word == "a" and following and following[0] in _SCALES:
        part = Decimal(1)
    else:
        return None, 1
    whole, end = Decimal(0), start + 1
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
        "An answer is right if it contains the expected one as a whole phrase, or is the part of the expected one that "
        "the question asks for, and if it names no other value of that kind: number, yes or no, colour, direction, "
        "shape, place, order, choice. Values that the question mentions are ignored, except those it offers as "
        "alternatives. Case, punctuation, articles, plurals, the way a number is written (2, two, 2.0; third, 3rd), "
        "and the order of a list, unless it is asked for, make no difference; “not” and “or” do. “From left to right” "
        "means right. “None” means 0 if the question is how many, and “It does not move.” means no if the question is "
        "whether it moves. A letter names a choice: B, B., (B) …, Answer: B."
    ),
    Rule.EXACT: (
        "An answer is right if it equals the expected one, apart from case, white space, and punctuation at the end. A "
        "letter names a choice: B, B., (B) …"
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
    """Whether one is a phrase of the other and nothing contradicts it."""
    said, wanted = _compared(words_of(answer), words_of(expected), words_of(question))
    if not said or not wanted or any(test(said) != test(wanted) for test in (denies, compares_number)):
        return False
    if ("or" in said) != ("or" in wanted):  # which leaves it open
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
    """The letter that a text names, or None, and what follows it."""
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
