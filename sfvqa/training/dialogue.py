"""An Example → rows of tokens of which the answers are learned, each answer behind the very prompt it is asked with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sfvqa.errors import CheckpointError
from sfvqa.inference.prompt import Prompt, Role, Turn, build_prompt, question_turn
from sfvqa.model.config import IMAGE_TOKEN_ID

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sfvqa.training.annotations import Example

IGNORED = -100  # label of a token that is not learned
_PROBE = "⟦answer⟧"


@dataclass(frozen=True)
class TokenRow:
    """Token ids, one IMAGE_TOKEN_ID where the video goes, and labels: the answers' own ids, else IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def num_tokens(self, num_fast_tokens: int) -> int:
        """How many they are when expanded."""
        return len(self.ids) + (num_fast_tokens - 1) * self.ids.count(IMAGE_TOKEN_ID)

    def expand(self, num_fast_tokens: int) -> TokenRow:
        """The same with a placeholder for every fast token."""
        if IMAGE_TOKEN_ID not in self.ids:
            return self
        place = self.ids.index(IMAGE_TOKEN_ID)
        labels = (*self.labels[:place], *[IGNORED] * num_fast_tokens, *self.labels[place + 1 :])
        return TokenRow(tuple(Prompt(self.ids).expand(num_fast_tokens)), labels)


class DialogueWriter:
    """Writes conversations with a checkpoint's chat template; `end_token_ids` are those at which answering stops.

    Raises CheckpointError when the template ends an answer with none of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._end = _answer_end(tokenizer, end_token_ids)

    def rows(self, example: Example) -> list[TokenRow]:
        """One row for a conversation; another from where a template shows earlier turns otherwise than it asked them.

        A row without a video holds no placeholder.
        """
        rows: list[TokenRow] = []
        ids: tuple[int, ...] = ()
        labels: tuple[int, ...] = ()
        turns = [] if example.system is None else [Turn(Role.SYSTEM, example.system)]
        for number, (question, answer) in enumerate(example.turns):
            turns.append(question_turn(question, shows_video=number == 0 and example.video is not None))
            prompt = build_prompt(self._tokenizer, turns).token_ids
            if prompt[: len(ids)] != ids:
                rows.append(TokenRow(ids, labels))
                ids, labels = (), ()
            learned = (*_text_ids(self._tokenizer, answer), self._end)
            labels = (*labels, *[IGNORED] * (len(prompt) - len(ids)), *learned)
            ids = (*prompt, *learned)
            turns.append(Turn(Role.ASSISTANT, answer))
        return [*rows, TokenRow(ids, labels)]


def _answer_end(tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int]) -> int:
    """The token that a template writes behind an answer, found behind one that occurs nowhere else."""
    said = _text_ids(tokenizer, _PROBE)
    turns = [Turn(Role.USER, "?"), Turn(Role.ASSISTANT, _PROBE), Turn(Role.USER, "?")]
    ids = build_prompt(tokenizer, turns).token_ids
    places = [place for place in range(len(ids)) if ids[place : place + len(said)] == said]
    behind = ids[places[0] + len(said) :] if places else ()
    end = next((token for token in behind if token in end_token_ids), None)
    if end is None:
        raise CheckpointError(
            "The chat template ends an answer with no token at which answering stops.",
            "Check the chat template, and eos_token_id in generation_config.json.",
        )
    return end


def _text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The ids of a turn's text, as prompts have them."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
