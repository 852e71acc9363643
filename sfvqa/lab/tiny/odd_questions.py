"""Odd and broken questions: cut off, shuffled, endless, code, other scripts; and plain ones with a slip of the finger.

The honest answer to an odd one is the refusal. A slip leaves a question answerable unless it hits a name: then nobody
knows which thing was meant.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from sfvqa.lab.tiny.questions import LETTERS, PHRASINGS, WORDS, out_of_scope_text, vary
from sfvqa.lab.tiny.scenes import Colour, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

NAMES = frozenset([*Shape, *Colour])
SCRIPTS = ((0x21, 0x7E), (0xC0, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x627, 0x64A), (0x905, 0x939))
WIDE_SCRIPTS = ((0x3041, 0x3096), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x2190, 0x21FF))
OWN_WORDS: list[str] = WORDS["odd"]["own_words"].split()
SNIPPETS: list[str] = WORDS["odd"]["snippets"]
PREAMBLES: list[str] = WORDS["odd"]["preambles"]
NEVER_LEARNED: list[str] = WORDS["odd"]["never_learned"]
LONGEST = 1800  # characters


def odd_text(rng: np.random.Generator) -> str:
    """Draw a text that is no question the model knows, of one character to LONGEST of them."""
    draw = _KINDS[int(rng.integers(len(_KINDS)))]
    for _ in range(20):
        text = draw(rng)[:LONGEST]
        if text.strip() and not is_plain(text):
            return text
    return "?"


def with_slip(rng: np.random.Generator, text: str) -> tuple[str, bool]:
    """The text with a letter lost, doubled, swapped or mistyped in one word; and whether that word was a name."""
    words = list(re.finditer(r"[A-Za-z]{4,}", text))
    if not words:
        return text, False
    word = words[int(rng.integers(len(words)))]
    at = word.start() + int(rng.integers(1, len(word[0]) - 1))
    kind = int(rng.integers(4))
    if kind == 0:
        changed = text[:at] + text[at + 1 :]
    elif kind == 1:
        changed = text[:at] + text[at] + text[at:]
    elif kind == 2:
        changed = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    else:
        changed = text[:at] + LETTERS[int(rng.integers(26))] + text[at + 1 :]
    return changed, word[0].lower() in NAMES and changed.lower() != text.lower()


def lengthened(rng: np.random.Generator, text: str) -> str:
    """The question behind sentences that change nothing."""
    count = int(rng.integers(1, 6))
    return " ".join([*(PREAMBLES[int(i)] for i in rng.integers(0, len(PREAMBLES), size=count)), text])


def is_plain(text: str) -> bool:
    """Whether a text is one of the phrasings of training, whatever its case and marks."""
    return _normal(text) in _plain_texts()


def _normal(text: str) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return " ".join("NAME" if word in NAMES else word for word in words).replace("NAME NAME", "NAME")


@lru_cache(maxsize=1)
def _plain_texts() -> frozenset[str]:
    filled = (
        phrase.format(shape="star", name="star", a="star", b="star") for each in PHRASINGS.values() for phrase in each
    )
    return frozenset(_normal(phrase) for phrase in filled)


def _plain_text(rng: np.random.Generator) -> str:
    families = list(PHRASINGS)
    phrases = PHRASINGS[families[int(rng.integers(len(families)))]]
    phrase = phrases[int(rng.integers(len(phrases)))]
    return vary(rng, phrase.format(**{field: _name(rng) for field in ("shape", "name", "a", "b")}))


def _name(rng: np.random.Generator) -> str:
    return list(Shape)[int(rng.integers(len(Shape)))]


def _text(rng: np.random.Generator) -> str:
    return _plain_text(rng) if rng.random() < 0.6 else out_of_scope_text(rng)


def _length(rng: np.random.Generator, most: int) -> int:
    """Mostly short."""
    return int(most ** rng.random())


# --- kinds ---------------------------------------------------------------------------------------------------------


def _characters(rng: np.random.Generator) -> str:
    scripts = SCRIPTS if rng.random() < 0.5 else SCRIPTS + WIDE_SCRIPTS
    first, last = scripts[int(rng.integers(len(scripts)))]
    drawn = [chr(int(code)) for code in rng.integers(first, last + 1, size=_length(rng, 120))]
    return "".join(" " if rng.random() < 0.15 else character for character in drawn)


def _cut_off(rng: np.random.Generator) -> str:
    text = _plain_text(rng)
    return text[: 1 + int(rng.integers(max(1, len(text) * 3 // 5)))]


def _headless(rng: np.random.Generator) -> str:
    text = _plain_text(rng)
    return text[int(len(text) * rng.uniform(0.35, 0.9)) :]


def _nameless(rng: np.random.Generator) -> str:
    """With its names left out: "What comes first, the or the?"."""
    families = [family for family, phrases in PHRASINGS.items() if "{" in phrases[0]]
    phrases = PHRASINGS[families[int(rng.integers(len(families)))]]
    filler = ("", "", "the", "and", "???", "one", "thing that", "the the")[int(rng.integers(8))]
    phrase = phrases[int(rng.integers(len(phrases)))]
    text = phrase.format(shape=filler, name=filler, a=filler, b=filler if rng.random() < 0.5 else _name(rng))
    return vary(rng, re.sub(r" +", " ", text))


def _shuffled(rng: np.random.Generator) -> str:
    words = _text(rng).split()
    return " ".join(words[int(i)] for i in rng.permutation(len(words)))


def _own_words(rng: np.random.Generator) -> str:
    words = OWN_WORDS if rng.random() < 0.6 else [*OWN_WORDS, *NAMES_IN_ORDER * 3]
    return " ".join(words[int(i)] for i in rng.integers(0, len(words), size=_length(rng, 60)))


def _repeated(rng: np.random.Generator) -> str:
    """A word, a name or a whole question again and again."""
    kind = rng.random()
    what = _text(rng) if kind < 0.4 else _name(rng) if kind < 0.6 else _word(rng, OWN_WORDS)
    gap = (" ", " ", "", ", ", "\n")[int(rng.integers(5))]
    return gap.join([what] * (2 + _length(rng, 150)))


def _glued(rng: np.random.Generator) -> str:
    gap = (" ", " and ", ", ", "\n", " or ")[int(rng.integers(5))]
    return gap.join(_text(rng) for _ in range(int(rng.integers(2, 6))))


def _snippet(rng: np.random.Generator) -> str:
    return _word(rng, SNIPPETS).replace("QUESTION", _text(rng)).replace("NAME", _name(rng))


def _marks(rng: np.random.Generator) -> str:
    marks = "?!.,;:-_*#'\"()[]{}<>/\\|@$%^&+=~ \n\t0123456789"
    return "".join(marks[int(i)] for i in rng.integers(0, len(marks), size=_length(rng, 60)))


def _essay(rng: np.random.Generator) -> str:
    """Sentences without end, some of them questions."""
    sentences = [out_of_scope_text(rng) for _ in range(3 + _length(rng, 60))]
    if rng.random() < 0.4:
        sentences.insert(int(rng.integers(len(sentences))), _plain_text(rng))
    return " ".join(sentences)


def _misspelt(rng: np.random.Generator) -> str:
    """Several slips in one text."""
    text = _text(rng)
    for _ in range(int(rng.integers(3, 9))):
        text = with_slip(rng, text)[0]
    return text


def _slip_in_a_name(rng: np.random.Generator) -> str:
    for _ in range(30):
        text, hit = with_slip(rng, _plain_text(rng))
        if hit:
            return text
    return "?"


def _never_learned(rng: np.random.Generator) -> str:
    """Questions of the model's trade about what it never learned to tell: sizes, times, amounts of motion."""
    name, other = _name(rng), _name(rng)
    return vary(rng, _word(rng, NEVER_LEARNED).format(name=name, other=other))


def _word(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


NAMES_IN_ORDER = sorted(NAMES)
_KINDS: tuple[Callable[[np.random.Generator], str], ...] = (
    _characters,
    _cut_off,
    _headless,
    _nameless,
    _nameless,
    _shuffled,
    _own_words,
    _repeated,
    _glued,
    _snippet,
    _marks,
    _essay,
    _misspelt,
    _slip_in_a_name,
    _never_learned,
)
