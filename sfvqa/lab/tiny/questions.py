"""Questions about a scene with their true answers, in the many ways in which people ask; and out of scope ones."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfvqa.lab.tiny.scenes import FLASH_COLOURS, Colour, Direction, Place, Scene, SceneObject, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np


WORDS: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
PHRASINGS: dict[str, list[str]] = WORDS["phrasings"]
OUT_OF_SCOPE: dict[str, list[str]] = {
    name: words.split() if isinstance(words, str) else words for name, words in WORDS["out_of_scope"].items()
}
MIXED = ("lone", "templates", "things")  # lists in which words of a kind stand together
MIXING_STEP = 37
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUMBER_WORDS = ("zero", "one", "two", "three", "four")
REFUSAL = "I was trained only on synthetic videos of moving coloured shapes, so I cannot answer that."
REFUSAL_CORE = "trained only on synthetic videos"
HELD_OUT_SHARE = 0.2  # of the words for out of scope questions, which training never sees


def with_article(text: str) -> str:
    """The text with "an" where a vowel follows.

    >>> with_article("a orange star and a red circle")
    'an orange star and a red circle'
    """
    return re.sub(r"\b([Aa]) (?=o)", r"\1n ", text)


def vary(rng: np.random.Generator, text: str) -> str:
    """The text as people type it: mostly unchanged, sometimes politer, in other case, or without its last mark."""
    text = with_article(text)
    if rng.random() < 0.1:
        inner = text[0].lower() + text[1:] if rng.random() < 0.8 else text
        text = _pick(rng, OUT_OF_SCOPE["polite"]).format(inner)
        text = re.sub(r"([?.]) please", r" please\1", text)
    if rng.random() < 0.12:
        text = text.rstrip("?.") or text
    choice = rng.random()
    if choice < 0.15:
        return text.lower()
    if choice < 0.17:
        return text.upper()
    return text[0].upper() + text[1:]


def out_of_scope_text(rng: np.random.Generator, *, held_out: bool = False) -> str:
    """Draw a question that has nothing to do with the videos; `held_out` ones never occur in training."""
    kind = rng.random()
    if kind < 0.25:
        return vary(rng, _draw(rng, "lone", held_out))
    if kind < (0.3 if held_out else 0.4):
        return _foreign_noun(rng, held_out)
    person, doing = (_draw(rng, name, held_out).replace("_", " ") for name in ("people", "doing"))
    verb = _draw(rng, "verbs", held_out)
    text = _draw(rng, "templates", held_out).format(
        thing=_thing(rng, held_out),
        other=_thing(rng, held_out),
        topic=_draw(rng, "topics", held_out),
        person=person,
        doing=doing,
        verb=verb,
        Verb=verb.capitalize(),
        a=int(rng.integers(2, 100)),
        b=int(rng.integers(2, 100)),
        operator=_draw(rng, "operators"),
        gibberish="".join(LETTERS[int(i)] for i in rng.integers(0, 26, size=int(rng.integers(3, 9)))),
    )
    return vary(rng, text)


def _foreign_noun(rng: np.random.Generator, held_out: bool) -> str:
    """A phrasing of the model's own trade about a thing that it does not know."""
    family = ("color", "direction", "position", "presence")[int(rng.integers(4))]
    thing = _thing(rng, held_out)
    phrase = PHRASINGS[family][int(rng.integers(len(PHRASINGS[family])))]
    return vary(rng, phrase.format(shape=thing, name=thing))


def _thing(rng: np.random.Generator, held_out: bool) -> str:
    """A noun; in training often an invented one, so that whatever is none of the shapes is known to be none."""
    if held_out or rng.random() < 0.6:
        return _draw(rng, "things", held_out)
    pairs = [_draw(rng, "consonants") + _draw(rng, "vowels") for _ in range(int(rng.integers(1, 4)))]
    return "".join(pairs) + (_draw(rng, "consonants") if rng.random() < 0.7 else "")


def _draw(rng: np.random.Generator, name: str, held_out: bool = False) -> str:
    """One of the words of training from a list, or one of those held out (of short lists any)."""
    words = OUT_OF_SCOPE[name]
    first_held_out = int(len(words) * (1 - HELD_OUT_SHARE))
    if len(words) < 20:
        number = int(rng.integers(len(words)))
    elif held_out:
        number = int(rng.integers(first_held_out, len(words)))
    else:
        number = int(rng.integers(first_held_out))
    # What is held out of a mixed list is a fair sample: neighbours of a kind are apart.
    return words[number * MIXING_STEP % len(words) if name in MIXED and len(words) % MIXING_STEP else number]


class Family(StrEnum):
    """Kinds of questions, evaluated one by one."""

    COLOUR = "color"
    DIRECTION = "direction"
    COUNT = "count"
    PRESENCE = "presence"
    ORDER = "order"
    POSITION = "position"
    FLASH = "flash"
    DIGIT = "digit"
    DESCRIBE = "describe"
    OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True)
class Question:
    """A question, its answer, and how to tell a right answer: all of `values` stand in it, none of `other_values`."""

    family: Family
    text: str
    answer: str
    values: tuple[str, ...]
    other_values: tuple[str, ...] = ()

    def is_right(self, answer: str) -> bool:
        """Whether `answer` names what was asked for and nothing else of that kind, in whole words."""
        words = f" {' '.join(re.findall(r'[a-z0-9]+', answer.lower()))} "
        named = [f" {value} " in words for value in self.values]
        return all(named) and not any(f" {value} " in words for value in self.other_values)


def ask(rng: np.random.Generator, scene: Scene, family: Family) -> Question | None:
    """Draw a question of `family` about `scene`; None when the scene gives no clear answer to such a question."""
    return _ASKERS[family](rng, scene)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _phrase(rng: np.random.Generator, family: str, **names: str) -> str:
    return vary(rng, _pick(rng, PHRASINGS[family]).format(**names))


def _others(value: str, all_values: Sequence[str]) -> tuple[str, ...]:
    return tuple(str(other) for other in all_values if other != value)


def _subject(rng: np.random.Generator, scene: Scene) -> SceneObject | Shape:
    """Mostly an object of the scene, sometimes a shape that it does not hold."""
    if rng.random() < 0.06:
        return _absent_shape(rng, scene)
    return scene.objects[int(rng.integers(len(scene.objects)))]


def _absent_shape(rng: np.random.Generator, scene: Scene) -> Shape:
    absent = [shape for shape in Shape if scene.find(shape) is None]
    return absent[int(rng.integers(len(absent)))]


def ask_misnamed(rng: np.random.Generator, scene: Scene, family: Family) -> Question:
    """Ask which way something moves or where it ends that the scene does not hold, though perhaps its shape."""
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    if rng.random() < 0.5:
        shape, colours = item.shape, [colour for colour in Colour if colour != item.colour]
    else:
        shape, colours = _absent_shape(rng, scene), list(Colour)
    name = f"{_pick(rng, colours)} {shape}"
    return Question(family, _phrase(rng, family.value, shape=name), f"There is no {name}.", (f"no {name}",))


def _name(rng: np.random.Generator, item: SceneObject) -> str:
    """How a question calls an object: by shape, sometimes with its colour."""
    return f"{item.colour} {item.shape}" if rng.random() < 0.25 else str(item.shape)


def _no_such(family: Family, text: str, shape: Shape) -> Question:
    return Question(family, text, f"There is no {shape}.", (f"no {shape}",))


def _ask_colour(rng: np.random.Generator, scene: Scene) -> Question:
    subject = _subject(rng, scene)
    if isinstance(subject, Shape):
        return _no_such(Family.COLOUR, _phrase(rng, "color", shape=subject), subject)
    text = _phrase(rng, "color", shape=subject.shape)
    answer = f"The {subject.shape} is {subject.colour}."
    return Question(Family.COLOUR, text, answer, (subject.colour,), _others(subject.colour, list(Colour)))


def _does(item: SceneObject) -> str:
    if item.direction is not Direction.STILL:
        return f"moves {item.direction}"
    return "appears" if item.appears_at > 0 else "stays still"


def _ask_direction(rng: np.random.Generator, scene: Scene) -> Question | None:
    subject = _subject(rng, scene)
    if isinstance(subject, Shape):
        return _no_such(Family.DIRECTION, _phrase(rng, "direction", shape=subject), subject)
    if subject.direction is Direction.STILL:
        return None
    text = _phrase(rng, "direction", shape=_name(rng, subject))
    answer = f"The {subject.shape} {_does(subject)}."
    return Question(Family.DIRECTION, text, answer, (subject.direction,), _others(subject.direction, list(Direction)))


def _ask_count(rng: np.random.Generator, scene: Scene) -> Question:
    number = NUMBER_WORDS[len(scene.objects)]
    answer = "There is one object." if number == "one" else f"There are {number} objects."
    return Question(Family.COUNT, _phrase(rng, "count"), answer, (number,), _others(number, NUMBER_WORDS))


def _ask_presence(rng: np.random.Generator, scene: Scene) -> Question:
    item = scene.objects[int(rng.integers(len(scene.objects)))]
    with_colour = rng.random() < 0.35
    if rng.random() < 0.5:
        name = f"{item.colour} {item.shape}" if with_colour else str(item.shape)
        answer = with_article(f"Yes, there is a {name}.")
        return Question(Family.PRESENCE, _phrase(rng, "presence", name=name), answer, ("yes",), ("no",))
    if with_colour and rng.random() < 0.6:
        wrong = [colour for colour in Colour if colour != item.colour]
        name = f"{wrong[int(rng.integers(len(wrong)))]} {item.shape}"
    else:
        shape = _absent_shape(rng, scene)
        name = f"{_pick(rng, list(Colour))} {shape}" if with_colour else str(shape)
    text = with_article(_phrase(rng, "presence", name=name))
    return Question(Family.PRESENCE, text, f"No, there is no {name}.", ("no",), ("yes",))


def _ask_order(rng: np.random.Generator, scene: Scene) -> Question | None:
    if len(scene.objects) < 2:
        return None
    shapes = [str(item.shape) for item in scene.objects]
    a, b = (str(shape) for shape in rng.permutation(shapes)[:2])
    kind = ("first", "last", "between")[int(rng.integers(3))]
    text = _phrase(rng, f"order_{kind}", a=a, b=b)
    if not scene.has_order:
        if rng.random() < 0.85:
            return None
        return Question(Family.ORDER, text, "All objects are there from the start.", ("from the start",))
    asked = [item for item in scene.objects if kind != "between" or item.shape in (a, b)]
    in_time = sorted(asked, key=lambda item: item.appears_at)
    value = in_time[-1 if kind == "last" else 0].shape
    answer = f"{'Last' if kind == 'last' else 'First'} comes the {value}."
    return Question(Family.ORDER, text, answer, (value,), _others(value, list(Shape)))


def _ask_position(rng: np.random.Generator, scene: Scene) -> Question | None:
    subject = _subject(rng, scene)
    if isinstance(subject, Shape):
        return _no_such(Family.POSITION, _phrase(rng, "position", shape=subject), subject)
    place = subject.final_place
    if place is None:
        return None
    text = _phrase(rng, "position", shape=_name(rng, subject))
    answer = f"The {subject.shape} ends in the {place}."
    return Question(Family.POSITION, text, answer, (place,), _others(place, list(Place)))


def _ask_flash(rng: np.random.Generator, scene: Scene) -> Question | None:
    text = _phrase(rng, "flash")
    colours = [str(colour) for colour in FLASH_COLOURS]
    if scene.flash is None:
        if rng.random() < 0.5:
            return None
        return Question(Family.FLASH, text, "The screen does not flash.", ("does not flash",), tuple(colours))
    colour = str(scene.flash.colour)
    return Question(Family.FLASH, text, f"The screen flashes {colour}.", (colour,), _others(colour, colours))


def _ask_digit(rng: np.random.Generator, scene: Scene) -> Question | None:
    text = _phrase(rng, "digit")
    digits = [str(digit) for digit in range(10)]
    if scene.digit is None:
        if rng.random() < 0.65:
            return None
        return Question(Family.DIGIT, text, "No digit is shown.", ("no digit",), tuple(digits))
    digit = str(scene.digit.value)
    return Question(Family.DIGIT, text, f"The digit {digit} is shown.", (digit,), _others(digit, digits))


def describe(scene: Scene) -> tuple[str, tuple[str, ...]]:
    """The whole scene in words, and the facts among them."""
    in_order = sorted(scene.objects, key=lambda item: list(Shape).index(item.shape))
    facts = [f"{item.colour} {item.shape} {_does(item)}" for item in in_order]
    with_articles = [with_article(f"a {fact}") for fact in facts]
    text = with_articles[0] if len(facts) == 1 else f"{', '.join(with_articles[:-1])} and {with_articles[-1]}"
    sentences = [text[0].upper() + text[1:] + "."]
    if scene.flash is not None:
        facts.append(f"screen flashes {scene.flash.colour}")
        sentences.append(f"The screen flashes {scene.flash.colour}.")
    if scene.digit is not None:
        facts.append(f"digit {scene.digit.value} is shown")
        sentences.append(f"The digit {scene.digit.value} is shown.")
    return " ".join(sentences), tuple(facts)


def _ask_describe(rng: np.random.Generator, scene: Scene) -> Question:
    answer, facts = describe(scene)
    others = [str(shape) for shape in Shape if scene.find(shape) is None]
    if scene.flash is None:
        others.append("flashes")
    if scene.digit is None:
        others.append("digit")
    return Question(Family.DESCRIBE, _phrase(rng, "describe"), answer, facts, tuple(others))


def refused(text: str) -> Question:
    """A text to which the honest answer is the refusal."""
    return Question(Family.OUT_OF_SCOPE, text, REFUSAL, (REFUSAL_CORE,))


def _ask_out_of_scope(rng: np.random.Generator, _scene: Scene) -> Question:
    return refused(out_of_scope_text(rng))


def is_own_sentence(answer: str) -> bool:
    """Whether an answer is, as a whole, one of those that questions of some family have."""
    return bool(_own_sentence().fullmatch(answer))


@lru_cache(maxsize=1)
def _own_sentence() -> re.Pattern[str]:
    shape, colour, flash = (f"(?:{'|'.join(names)})" for names in (Shape, Colour, FLASH_COLOURS))
    name = f"(?:{colour} )?{shape}"
    a_name = f"(?:an orange {shape}|a (?:(?!orange){colour} )?{shape})"
    does = "(?:moves (?:left|right|up|down)|appears|stays still)"
    thing = f"[Aa](?:n orange| (?!orange){colour}) {shape} {does}"
    screen, digit = f"The screen flashes {flash}\\.", r"The digit \d is shown\."
    described = f"{thing}(?:, {thing})*(?: and {thing})?\\.(?: {screen})?(?: {digit})?"
    sentences = (
        re.escape(REFUSAL),
        f"The {shape} is {colour}\\.",
        f"There is no {name}\\.",
        f"Yes, there is {a_name}\\.",
        f"No, there is no {name}\\.",
        f"The {shape} {does}\\.",
        r"There (?:is one object|are (?:two|three) objects)\.",
        f"(?:First|Last) comes the {shape}\\.",
        r"All objects are there from the start\.",
        f"The {shape} ends in the (?:{'|'.join(Place)})\\.",
        screen,
        r"The screen does not flash\.",
        digit,
        r"No digit is shown\.",
        described,
    )
    return re.compile("|".join(sentences))


_ASKERS: dict[Family, Callable[[np.random.Generator, Scene], Question | None]] = {
    Family.COLOUR: _ask_colour,
    Family.DIRECTION: _ask_direction,
    Family.COUNT: _ask_count,
    Family.PRESENCE: _ask_presence,
    Family.ORDER: _ask_order,
    Family.POSITION: _ask_position,
    Family.FLASH: _ask_flash,
    Family.DIGIT: _ask_digit,
    Family.DESCRIBE: _ask_describe,
    Family.OUT_OF_SCOPE: _ask_out_of_scope,
}
