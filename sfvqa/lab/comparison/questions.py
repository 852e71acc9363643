"""Questions about a benchmark scene with their true answers; what cannot be told for certain is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from sfvqa.lab.comparison.scenes import (
    DIGITS,
    MAX_MOVERS,
    OBJECT_COLOURS,
    SIDES,
    BenchmarkScene,
    Burst,
    Mover,
    Plate,
    Sign,
    Span,
    halves,
)
from sfvqa.lab.tiny.questions import NUMBER_WORDS
from sfvqa.lab.tiny.scenes import FLASH_COLOURS, Pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np


class Skill(StrEnum):
    """What a question takes."""

    TIME = "time"
    DETAIL = "detail"
    BOTH = "both"
    OVERVIEW = "overview"


class BenchmarkFamily(StrEnum):
    """Kinds of questions, scored one by one, each with the skill that it takes."""

    ORDER = "order", Skill.TIME
    DIRECTION = "direction", Skill.TIME
    EVENTS = "events", Skill.TIME
    SPEED = "speed", Skill.TIME
    FLASH = "flash", Skill.TIME
    DIGIT = "digit", Skill.DETAIL
    LETTER = "letter", Skill.DETAIL
    GAP = "gap", Skill.DETAIL
    DIGIT_AT = "digit_at", Skill.BOTH
    COLOUR = "color", Skill.OVERVIEW
    COUNT = "count", Skill.OVERVIEW
    BACKGROUND = "background", Skill.OVERVIEW

    skill: Skill

    def __new__(cls, name: str, skill: Skill) -> Self:
        """A string that knows its skill."""
        member = str.__new__(cls, name)
        member._value_, member.skill = name, skill
        return member


PHRASINGS: dict[BenchmarkFamily, tuple[str, ...]] = {
    BenchmarkFamily.ORDER: ("Which appears first, the {a} or the {b}?", "What comes first, the {a} or the {b}?"),
    BenchmarkFamily.DIRECTION: ("Which way does the {shape} move?", "In which direction does the {shape} move?"),
    BenchmarkFamily.EVENTS: ("How often does the border light up?", "How many times does the border light up?"),
    BenchmarkFamily.SPEED: ("Which moves faster, the {a} or the {b}?", "Which is faster, the {a} or the {b}?"),
    BenchmarkFamily.FLASH: ("What colour does the screen flash?", "Which colour is the flash?"),
    BenchmarkFamily.DIGIT: ("Which digit is on the {plate} plate?", "What digit does the {plate} plate bear?"),
    BenchmarkFamily.LETTER: ("Which letter is on the {plate} plate?", "What letter does the {plate} plate bear?"),
    BenchmarkFamily.GAP: (
        "Where is the gap of the ring on the {plate} plate?",
        "On which side is the ring on the {plate} plate open?",
    ),
    BenchmarkFamily.DIGIT_AT: (
        "Which digit is on the {plate} plate while the {shape} is at the {end}?",
        "What digit does the {plate} plate bear while the {shape} is at the {end}?",
    ),
    BenchmarkFamily.COLOUR: ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    BenchmarkFamily.COUNT: ("How many coloured shapes are there?", "Count the coloured shapes."),
    BenchmarkFamily.BACKGROUND: ("Which pattern is on the background?", "What does the background look like?"),
}

DIGIT_WORDS = dict(
    zip(DIGITS, ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True)
)
LEAST_SECONDS_APART = 0.1  # of the duration, between two appearances whose order is asked
LEAST_SPEED_RATIO = 1.8

_T = TypeVar("_T")


@dataclass(frozen=True)
class BenchmarkQuestion:
    """A question, its answer, and the answers that somebody who knows what is asked would choose from.

    Any one frame of `seen_during` tells the answer; None where that takes several.
    """

    family: BenchmarkFamily
    text: str
    answer: str
    options: tuple[str, ...]
    seen_during: Span | None = None

    def __post_init__(self) -> None:
        if self.answer not in self.options:
            raise ValueError(f"the answer {self.answer!r} is none of {self.options}")


def ask(rng: np.random.Generator, scene: BenchmarkScene, family: BenchmarkFamily) -> BenchmarkQuestion | None:
    """Draw a question of `family` about `scene`; None when the scene gives no clear answer to such a question."""
    found = _ASKERS[family](rng, scene)
    if found is None:
        return None
    phrasings = PHRASINGS[family]
    text = phrasings[int(rng.integers(len(phrasings)))].format(**found.names)
    options = tuple(str(option) for option in found.options)
    return BenchmarkQuestion(family, text, found.answer, options, found.seen_during)


def ask_all(rng: np.random.Generator, scene: BenchmarkScene) -> list[BenchmarkQuestion]:
    """One question of every family that the scene answers, in order of families."""
    asked = (ask(rng, scene, family) for family in BenchmarkFamily)
    return [question for question in asked if question is not None]


@dataclass(frozen=True)
class _Found:
    answer: str
    options: Sequence[str]
    names: dict[str, str]
    seen_during: Span | None = None


def _one(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    return choices[int(rng.integers(len(choices)))]


def _order(rng: np.random.Generator, scene: BenchmarkScene) -> _Found | None:
    apart = LEAST_SECONDS_APART * scene.timeline.duration_seconds
    return _between(rng, scene, lambda a, b: b.appears_at - a.appears_at >= apart)


def _speed(rng: np.random.Generator, scene: BenchmarkScene) -> _Found | None:
    return _between(rng, scene, lambda a, b: a.speed >= LEAST_SPEED_RATIO * b.speed)


def _between(
    rng: np.random.Generator, scene: BenchmarkScene, is_answer: Callable[[Mover, Mover], bool]
) -> _Found | None:
    """Two movers of which `is_answer` holds for one before the other, named in either order."""
    pairs = [(a, b) for a in scene.movers for b in scene.movers if is_answer(a, b)]
    if not pairs:
        return None
    right, wrong = _one(rng, pairs)
    first, second = (right, wrong) if rng.random() < 0.5 else (wrong, right)
    return _Found(right.shape, (first.shape, second.shape), {"a": first.shape, "b": second.shape})


def _direction(rng: np.random.Generator, scene: BenchmarkScene) -> _Found:
    mover = _one(rng, scene.movers)
    return _Found(mover.direction, SIDES, {"shape": mover.shape})


def _events(_rng: np.random.Generator, scene: BenchmarkScene) -> _Found | None:
    if not scene.pulses:
        return None
    return _Found(NUMBER_WORDS[len(scene.pulses)], NUMBER_WORDS[1:], {})


def _flash(_rng: np.random.Generator, scene: BenchmarkScene) -> _Found | None:
    return None if scene.flash is None else _Found(scene.flash.colour, FLASH_COLOURS, {}, scene.flash.span)


def _on_a_plate(rng: np.random.Generator, scene: BenchmarkScene, sign: Sign) -> _Found | None:
    """What the plate of one colour bears, where its colour names one plate."""
    bursts = scene.bursts_of(sign)
    if len(bursts) != 1:
        return None
    plate = _one(rng, bursts[0].plates)
    could_be = [told_of(plate.colour, other) for other in bursts[0].plates]
    return _Found(told_of(plate.colour, plate), could_be, {"plate": plate.colour}, plate.span)


def told_of(asked: str, plate: Plate) -> str:
    """The answer says again what is `asked` about: "red seven", "star top red seven"."""
    return f"{asked} {DIGIT_WORDS.get(plate.text, plate.text)}"


def _digit_at(rng: np.random.Generator, scene: BenchmarkScene) -> _Found | None:
    """A mover that rests at the top during one burst of digits and at the bottom during another, or the reverse."""
    bursts = scene.bursts_of(Sign.DIGIT)
    if len(bursts) != 2:
        return None
    found: list[tuple[Mover, Burst, Burst]] = []
    for mover in scene.movers:
        rests = halves(mover, scene.timeline)
        for first, second in (bursts, bursts[::-1]):
            if rests is not None and first.span.lies_in(rests[0]) and second.span.lies_in(rests[1]):
                found.append((mover, first, second))
    if not found:
        return None
    mover, before, after = _one(rng, found)
    asks_before = rng.random() < 0.5
    is_at_top = (mover.start[1] < mover.end[1]) == asks_before
    plate = _one(rng, (before if asks_before else after).plates)
    end = "top" if is_at_top else "bottom"
    asked = f"{mover.shape} {end} {plate.colour}"
    could_be = [told_of(asked, other) for burst in bursts for other in burst.plates]
    names = {"plate": plate.colour, "shape": mover.shape, "end": end}
    return _Found(told_of(asked, plate), could_be, names, plate.span)


def _colour(rng: np.random.Generator, scene: BenchmarkScene) -> _Found:
    mover = _one(rng, scene.movers)
    until_the_end = Span(mover.appears_at, scene.timeline.duration_seconds + scene.timeline.step_seconds)
    return _Found(mover.colour, OBJECT_COLOURS, {"shape": mover.shape}, until_the_end)


def _count(_rng: np.random.Generator, scene: BenchmarkScene) -> _Found:
    return _Found(NUMBER_WORDS[len(scene.movers)], NUMBER_WORDS[1 : MAX_MOVERS + 1], {})


def _background(_rng: np.random.Generator, scene: BenchmarkScene) -> _Found:
    return _Found(scene.pattern, list(Pattern), {})


_ASKERS: dict[BenchmarkFamily, Callable[[np.random.Generator, BenchmarkScene], _Found | None]] = {
    BenchmarkFamily.ORDER: _order,
    BenchmarkFamily.DIRECTION: _direction,
    BenchmarkFamily.EVENTS: _events,
    BenchmarkFamily.SPEED: _speed,
    BenchmarkFamily.FLASH: _flash,
    BenchmarkFamily.DIGIT: partial(_on_a_plate, sign=Sign.DIGIT),
    BenchmarkFamily.LETTER: partial(_on_a_plate, sign=Sign.LETTER),
    BenchmarkFamily.GAP: partial(_on_a_plate, sign=Sign.RING),
    BenchmarkFamily.DIGIT_AT: _digit_at,
    BenchmarkFamily.COLOUR: _colour,
    BenchmarkFamily.COUNT: _count,
    BenchmarkFamily.BACKGROUND: _background,
}
