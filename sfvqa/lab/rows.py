"""Conversations about a video become rows of tokens, and rows become a loss: only the answers are learned.

One row holds several turns, so that the tokens of a video are paid for once. A row's first turn is, token by token,
what `sfvqa.inference.prompt` builds for that question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional

from sfvqa.lab.motion_heads import ASKED, MotionHeads, MotionTargets
from sfvqa.lab.network import END_OF_TEXT, END_OF_TURN, START_OF_TURN
from sfvqa.model.config import IMAGE_TOKEN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens

IGNORED = -100  # label of a token that is not learned
MOTION_WEIGHT = 0.2  # of the motion heads' loss beside that of the answers
MOST_CACHED_TEXTS = 100_000


class Turn(Protocol):
    """What a row is built of: a question and its answer."""

    @property
    def text(self) -> str:
        """The question."""

    @property
    def answer(self) -> str:
        """The true answer."""


@dataclass(frozen=True)
class Row:
    """Token ids, IMAGE_TOKEN_ID in place of every fast token, and labels with IGNORED where nothing is learned."""

    ids: list[int]
    labels: list[int]


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
            if len(self._cache) > MOST_CACHED_TEXTS:
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

    def stack(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Ids and labels, each [B, L], padded on the right."""
        longest = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), longest), self.padding_id)
        labels = torch.full((len(rows), longest), IGNORED)
        for number, row in enumerate(rows):
            ids[number, : len(row.ids)] = torch.tensor(row.ids)
            labels[number, : len(row.ids)] = torch.tensor(row.labels)
        return ids, labels


@dataclass(frozen=True, eq=False)
class Sample:
    """A row, the visual tokens it is about (None without a video), and what motion heads ask of it (None: nothing)."""

    row: Row
    visual_tokens: VisualTokens | None
    motion: MotionTargets | None = None

    @property
    def num_slow(self) -> int:
        """How many slow tokens it looks at."""
        return 0 if self.visual_tokens is None else len(self.visual_tokens.slow)


def alike(samples: Sequence[Sample], rows_at_once: int) -> Iterator[list[Sample]]:
    """Chunks of up to `rows_at_once` samples of like length, so that little is padding and long ones cost little."""
    ordered = sorted(samples, key=lambda sample: (sample.num_slow, len(sample.row.ids)))
    chunk: list[Sample] = []
    for sample in ordered:
        longer = chunk and len(sample.row.ids) > 2 * len(chunk[0].row.ids)
        if len(chunk) == rows_at_once or longer or (chunk and sample.num_slow != chunk[0].num_slow):
            yield chunk
            chunk = []
        chunk.append(sample)
    yield chunk


class RowTrainer:
    """Runs rows through a model: adds their gradients, or tells which answers are right.

    `motion_heads` teach beside the answers; `in_16_bit` computes in bfloat16 on a GPU.
    """

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        motion_heads: MotionHeads | None = None,
        *,
        in_16_bit: bool = False,
    ) -> None:
        self._model, self._rows, self._motion_heads = model, rows, motion_heads
        device = model.device.type
        self._autocast = torch.autocast(device, dtype=torch.bfloat16, enabled=in_16_bit and device == "cuda")

    def accumulate(self, samples: Sequence[Sample], rows_at_once: int) -> float:
        """Add the gradient of a step and return its mean loss per learned token."""
        num_tokens = sum(label != IGNORED for sample in samples for label in sample.row.labels)
        total = 0.0
        for chunk in alike(samples, rows_at_once):
            logits, labels, hidden_states = self._run(chunk, with_hidden=self._motion_heads is not None)
            answers = functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            loss = answers / num_tokens
            targets = [sample.motion for sample in chunk if sample.motion is not None]
            if self._motion_heads is not None and targets:
                motion = self._motion_heads.loss(hidden_states, targets)
                loss = loss + MOTION_WEIGHT * motion * len(chunk) / len(samples)
            loss.backward()
            total += answers.item() / num_tokens
        return total

    @torch.no_grad()
    def are_right(self, samples: Sequence[Sample], rows_at_once: int = 20) -> list[bool]:
        """Whether every token of a sample's answers is the likeliest one."""
        right: list[bool] = []
        for start in range(0, len(samples), rows_at_once):
            logits, labels, _ = self._run(samples[start : start + rows_at_once])
            right += ((logits.argmax(-1) == labels) | (labels == IGNORED)).all(1).tolist()
        return right

    def _run(self, samples: Sequence[Sample], *, with_hidden: bool = False) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits [B, K, V], the labels [B, K] that they should predict, and what the decoder holds at fast tokens.

        The part of the logits before any answer is left out. The hidden states are those ASKED, [videos, F, D] each,
        of videos with motion to ask about.
        Padding is on the right, where nothing that counts can see it: no mask is needed, and attention is faster
        without.
        """
        ids, labels = (part.to(self._model.device) for part in self._rows.stack([sample.row for sample in samples]))
        first = int((labels != IGNORED).any(0).to(torch.uint8).argmax()) - 1
        with self._autocast:
            output = self._model(
                ids,
                visual_tokens=[sample.visual_tokens for sample in samples],
                use_cache=False,
                logits_to_keep=ids.shape[1] - first,
                output_hidden_states=with_hidden,
            )
        assert output.logits is not None
        hidden_states = []
        moving = torch.tensor([sample.motion is not None for sample in samples], device=ids.device)
        if with_hidden and moving.any():
            is_fast = (ids == IMAGE_TOKEN_ID) & moving[:, None]
            shape = (int(moving.sum()), -1)
            hidden_states = [state[is_fast].unflatten(0, shape) for state in output.hidden_states[ASKED]]
        return output.logits[:, :-1].float(), labels[:, first + 1 :], hidden_states
