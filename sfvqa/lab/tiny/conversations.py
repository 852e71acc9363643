"""What a row asks about a video: how many questions of which families, odd ones among them. Knows no tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfvqa.lab.tiny.odd_questions import lengthened, odd_text, with_slip
from sfvqa.lab.tiny.questions import Family, Question, ask, ask_misnamed, refused

if TYPE_CHECKING:
    import numpy as np

    from sfvqa.lab.tiny.scenes import Scene


@dataclass(frozen=True)
class Mixture:
    """What a row asks: `turns` draws from `families`, the others by their chance, and how many rows make a step."""

    families: tuple[Family, ...]
    turns: int
    rows_per_step: int
    flash_or_digit: float = 0.6  # each of the two
    out_of_scope: float = 0.2
    odd: float = 0.12  # rows without a question out of scope that ask an odd one in its place
    misnamed: float = 0.0  # of the questions which way something moves or where it ends: it is not there
    slips: float = 0.03  # of the questions; those that hit a name are refused
    lengthened: float = 0.02  # of the questions
    shouted: float = 0.0  # of the questions, in capitals
    describe_only: float = 0.2
    describe_early: float = 0.0  # rows that go on after a description
    describe_last: float = 0.15


STILLS = Mixture((Family.COLOUR, Family.COUNT, Family.PRESENCE, Family.POSITION), turns=3, rows_per_step=32)
VIDEOS = Mixture(
    (
        Family.COLOUR,
        Family.COUNT,
        Family.PRESENCE,
        *[Family.DIRECTION] * 3,
        *[Family.ORDER] * 3,
        *[Family.POSITION] * 3,
    ),
    turns=3,
    rows_per_step=32,
)
# Once colour, flash and digit are known, what only several frames together tell is asked most, many turns a video.
HARD = Mixture(
    (
        *[Family.COLOUR] * 2,
        *[Family.COUNT] * 3,
        *[Family.PRESENCE] * 4,
        *[Family.DIRECTION] * 6,
        *[Family.ORDER] * 5,
        *[Family.POSITION] * 10,
    ),
    turns=7,
    rows_per_step=24,
    flash_or_digit=0.25,
    out_of_scope=0.2,
)

# At last what is still wrong now and then, and what nobody would ask.
ODD = replace(
    HARD,
    families=(
        *[Family.COLOUR] * 2,
        *[Family.COUNT] * 2,
        *[Family.PRESENCE] * 3,
        *[Family.DIRECTION] * 6,
        *[Family.ORDER] * 10,
        *[Family.POSITION] * 8,
    ),
    odd=0.35,
    slips=0.02,
    lengthened=0.03,
    shouted=0.04,
    describe_early=0.06,
)
MISNAMED = replace(ODD, misnamed=0.08)


def draw_conversation(rng: np.random.Generator, scene: Scene, mixture: Mixture) -> list[Question]:
    """Questions for one row: a description alone, or a mixture of families in random order, no answer twice."""
    if rng.random() < mixture.describe_only:
        return _ask_each(rng, scene, [Family.DESCRIBE], mixture)
    families = [mixture.families[int(rng.integers(len(mixture.families)))] for _ in range(mixture.turns)]
    families += [family for family in (Family.FLASH, Family.DIGIT) if rng.random() < mixture.flash_or_digit]
    families += [Family.OUT_OF_SCOPE] if rng.random() < mixture.out_of_scope else []
    order = [families[int(i)] for i in rng.permutation(len(families))]
    described = rng.random()
    if described < mixture.describe_last:
        order.append(Family.DESCRIBE)
    elif described < mixture.describe_last + mixture.describe_early:
        order.insert(int(rng.integers(len(order))), Family.DESCRIBE)
    return _ask_each(rng, scene, order, mixture) or _ask_each(rng, scene, [Family.DESCRIBE], mixture)


def _ask_each(rng: np.random.Generator, scene: Scene, families: list[Family], mixture: Mixture) -> list[Question]:
    """Those that the scene answers clearly, perhaps with an odd one among them.

    One whose answer stands in the row already would teach copying.
    """
    odd = None
    if rng.random() < mixture.odd and Family.OUT_OF_SCOPE not in families:
        odd = int(rng.integers(len(families) + 1)), refused(odd_text(rng))
    drawn = [_ask_one(rng, scene, family, mixture) for family in families]
    if odd is not None:
        drawn.insert(*odd)
    found: dict[str, Question] = {}
    for question in filter(None, drawn):
        found.setdefault(question.answer, question)
    return list(found.values())


def _ask_one(rng: np.random.Generator, scene: Scene, family: Family, mixture: Mixture) -> Question | None:
    # Without any nothing is drawn, so that the stages before are what they were.
    can_be_misnamed = mixture.misnamed and family in (Family.DIRECTION, Family.POSITION)
    if can_be_misnamed and rng.random() < mixture.misnamed:
        question: Question | None = ask_misnamed(rng, scene, family)
    else:
        question = ask(rng, scene, family)
    return None if question is None else as_typed(rng, question, mixture)


def as_typed(rng: np.random.Generator, question: Question, mixture: Mixture) -> Question:
    """The question with a slip, in capitals or behind other sentences, seldom; refused where a slip hit a name."""
    if rng.random() < mixture.slips:
        text, hit_a_name = with_slip(rng, question.text)
        return refused(text) if hit_a_name else replace(question, text=text)
    kind = rng.random()
    if kind < mixture.lengthened:
        return replace(question, text=lengthened(rng, question.text))
    if kind < mixture.lengthened + mixture.shouted:
        return replace(question, text=question.text.upper())
    return question
