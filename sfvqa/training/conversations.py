"""Questions and answers about one video become rows of tokens, of which only the answers are learned.

One row holds several turns, so that the tokens of a video are paid for once. A row's first turn is, token by token,
what `sfvqa.inference.prompt` builds for that question.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.training.odd_questions import lengthened, odd_text, with_slip
from sfvqa.training.questions import Family, Question, ask, refused
from sfvqa.training.tokenizer import END_OF_TEXT, END_OF_TURN, START_OF_TURN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from sfvqa.training.scenes import Scene

IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class Mixture:
    """What a row asks: `turns` draws from `families`, the others by their chance, and how many rows make a step."""

    families: tuple[Family, ...]
    turns: int
    rows_per_step: int
    flash_or_digit: float = 0.6  # each of the two
    out_of_scope: float = 0.2
    odd: float = 0.12  # rows without a question out of scope that ask an odd one in its place
    slips: float = 0.03  # of the questions; those that hit a name are refused
    lengthened: float = 0.02  # of the questions
    describe_only: float = 0.2
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
    out_of_scope=0.15,
    odd=0.6,
    lengthened=0.04,
)


def draw_conversation(rng: np.random.Generator, scene: Scene, mixture: Mixture) -> list[Question]:
    """Questions for one row: a description alone, or a mixture of families in random order, no answer twice."""
    if rng.random() < mixture.describe_only:
        return _ask_each(rng, scene, [Family.DESCRIBE], mixture)
    families = [mixture.families[int(rng.integers(len(mixture.families)))] for _ in range(mixture.turns)]
    families += [family for family in (Family.FLASH, Family.DIGIT) if rng.random() < mixture.flash_or_digit]
    families += [Family.OUT_OF_SCOPE] if rng.random() < mixture.out_of_scope else []
    order = [families[int(i)] for i in rng.permutation(len(families))]
    order += [Family.DESCRIBE] if rng.random() < mixture.describe_last else []
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
    question = ask(rng, scene, family)
    return None if question is None else as_typed(rng, question, mixture)


def as_typed(rng: np.random.Generator, question: Question, mixture: Mixture) -> Question:
    """The question with a slip or behind other sentences, seldom; with a name that nobody knows it is refused."""
    if rng.random() < mixture.slips:
        text, hit_a_name = with_slip(rng, question.text)
        return refused(text) if hit_a_name else replace(question, text=text)
    if rng.random() < mixture.lengthened:
        return replace(question, text=lengthened(rng, question.text))
    return question


@dataclass(frozen=True)
class Row:
    """Token ids, IMAGE_TOKEN_ID in place of every fast token, and labels with IGNORED where nothing is learned."""

    ids: list[int]
    labels: list[int]


class Turn(Protocol):
    """What a row is built of: a question and its answer."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def answer(self) -> str:
        """What is to be said."""


class RowBuilder:
    """Writes conversations as the chat template does."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.padding_id = int(tokenizer.convert_tokens_to_ids(END_OF_TEXT))  # type: ignore[arg-type]
        self._end = int(tokenizer.convert_tokens_to_ids(END_OF_TURN))  # type: ignore[arg-type]
        opening = f"{START_OF_TURN}system\nYou are a helpful assistant.{END_OF_TURN}\n{START_OF_TURN}user\n"
        self._opening = self._encode(opening)
        self._to_answer = self._encode(f"{END_OF_TURN}\n{START_OF_TURN}assistant\n")
        self._to_question = self._encode(f"\n{START_OF_TURN}user\n")

    def _encode(self, text: str) -> list[int]:
        if text not in self._cache:
            if len(self._cache) > 100_000:
                self._cache.clear()
            self._cache[text] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return self._cache[text]

    def build(self, questions: Sequence[Turn], num_fast_tokens: int) -> Row:
        """One row; without fast tokens it is a conversation without a video."""
        ids = [*self._opening, *[IMAGE_TOKEN_ID] * num_fast_tokens]
        labels = [IGNORED] * len(ids)
        for number, question in enumerate(questions):
            shows_video = number == 0 and num_fast_tokens > 0
            asked = self._encode(f"\n{question.text}" if shows_video else question.text) + self._to_answer
            answer = [*self._encode(question.answer), self._end]
            before = [] if number == 0 else self._to_question
            ids += before + asked + answer
            labels += [IGNORED] * (len(before) + len(asked)) + answer
        return Row(ids, labels)

    def stack(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Right-padded ids, attention mask and labels, each [B, L]."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.padding_id)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        labels = torch.full((len(rows), longest), IGNORED)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            mask[number, : len(row.ids)] = 1
            labels[number, : len(row.ids)] = torch.tensor(row.labels)
        return ids, mask, labels
