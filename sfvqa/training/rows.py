"""Conversations about videos → rows of tokens, each answer after the prompt that `ask` would use; padded batches."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.encode import pixel_values
from sfvqa.inference.prompt import Role, Turn, build_prompt, question_turn
from sfvqa.model import SlowFastConfig
from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.model.families import Family
from sfvqa.model.families.slowfast import FAMILY as SLOWFAST
from sfvqa.model.visual_tokens import split_video
from sfvqa.training.annotations import Example
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.reading import read_clip
from sfvqa.video.sampling import SamplingOptions

IGNORED = -100  # label of a token that is not learned
_PROBE = "⟦answer⟧"


@dataclass(frozen=True)
class TokenRow:
    """Token ids, one IMAGE_TOKEN_ID where the video goes, and labels: the answers' own ids, else IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]

    def num_tokens(self, num_fast_tokens: int) -> int:
        """Number of tokens after `expand`."""
        return len(self.ids) + (num_fast_tokens - 1) * self.ids.count(IMAGE_TOKEN_ID)

    def expand(self, num_fast_tokens: int) -> "TokenRow":
        """The same with a placeholder for every fast token."""
        if IMAGE_TOKEN_ID not in self.ids:
            return self
        place = self.ids.index(IMAGE_TOKEN_ID)
        ids = (*self.ids[:place], *[IMAGE_TOKEN_ID] * num_fast_tokens, *self.ids[place + 1 :])
        return TokenRow(ids, (*self.labels[:place], *[IGNORED] * num_fast_tokens, *self.labels[place + 1 :]))


class DialogueWriter:
    """Writes conversations with a checkpoint's chat template; `end_token_ids` are those at which answering stops.

    Raises CheckpointError when the template ends an answer with none of them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int], family: Family = SLOWFAST
    ) -> None:
        self._tokenizer, self._family = tokenizer, family
        self._end = _answer_end(tokenizer, end_token_ids, family)

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
            prompt = tuple(build_prompt(self._tokenizer, turns, self._family, self._family.lay_out(1, (0.0,), 0.0)))
            if prompt[: len(ids)] != ids:
                rows.append(TokenRow(ids, labels))
                ids, labels = (), ()
            learned = (*_text_ids(self._tokenizer, answer), self._end)
            labels = (*labels, *[IGNORED] * (len(prompt) - len(ids)), *learned)
            ids = (*prompt, *learned)
            turns.append(Turn(Role.ASSISTANT, answer))
        return [*rows, TokenRow(ids, labels)]


def _answer_end(tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int], family: Family) -> int:
    """The token that a template writes behind an answer, found behind one that occurs nowhere else."""
    said = _text_ids(tokenizer, _PROBE)
    turns = [Turn(Role.USER, "?"), Turn(Role.ASSISTANT, _PROBE), Turn(Role.USER, "?")]
    ids = tuple(build_prompt(tokenizer, turns, family))
    places = [place for place in range(len(ids)) if ids[place : place + len(said)] == said]
    behind = ids[places[0] + len(said) :] if places else ()
    end = next((token for token in behind if token in end_token_ids), None)
    if end is None:
        raise CheckpointError(
            "The chat template does not end an answer with a token that stops generation.",
            "Check the chat template, and eos_token_id in generation_config.json.",
        )
    return end


def _text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The ids of a turn's text, as prompts have them."""
    return tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looking:
    """How videos are sampled, cropped and read."""

    sampling: SamplingOptions
    crop: CropMode
    reading: ReadOptions


class VideoDataset(Dataset[dict[str, Any]]):
    """One item a row: `input_ids`, `labels`, and `pixel_values` `[T, 3, S, S]`, None without a video.

    Raises UsageError when built for rows that are too long, as far as the number of frames is known: of a video that is
    damaged in the middle they may turn out to be fewer.
    """

    def __init__(
        self, examples: Sequence[Example], writer: DialogueWriter, config: SlowFastConfig, looking: Looking
    ) -> None:
        self._config, self._looking = config, looking
        self._rows = [(example, row) for example in examples for row in writer.rows(example)]
        known = {example.num_frames for example in examples if example.num_frames}
        num_fast = {count: num_fast_tokens(count, config) for count in known}
        self._check_lengths(
            (example, row.num_tokens(num_fast[example.num_frames] if example.num_frames else 0))
            for example, row in self._rows
            if example.video is None or example.num_frames
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one row; VideoError for a video that cannot be read, UsageError for a row that is too long."""
        example, row = self._rows[index]
        pixels = None if example.video is None else self._read(example.video)
        if pixels is not None:
            row = row.expand(num_fast_tokens(len(pixels), self._config))
        self._check_lengths([(example, len(row.ids))])
        return {"input_ids": row.ids, "labels": row.labels, "pixel_values": pixels}

    def _check_lengths(self, lengths: Iterable[tuple[Example, int]]) -> None:
        positions = int(self._config.decoder_config.max_position_embeddings)
        if too_long := [(example.name, length) for example, length in lengths if length > positions]:
            name, length = too_long[0]
            others = f"; rows that are too long: {len(too_long)}" if len(too_long) > 1 else ""
            raise UsageError(
                f"Example {name} takes {length} tokens, but the model has only {positions} positions{others}.",
                "Shorten or remove them, take fewer frames, or average the fast tokens over more when converting.",
            )

    def _read(self, video: Path) -> Tensor:
        looking, vision = self._looking, self._config.vision
        clip = read_clip(
            video, looking.sampling, reading=looking.reading, fit=self._config.family.fit(vision, looking.crop)
        )
        for warning in clip.warnings:
            logger.warning("%s: %s", video, warning)
        return pixel_values(clip.frames, vision)


def num_fast_tokens(num_frames: int, config: SlowFastConfig) -> int:
    """Number of fast tokens of a video of `num_frames` frames."""
    side = config.grid_side(num_frames)
    return len(split_video(torch.empty(num_frames, side, side, 1), config).fast) + config.family.num_behind_video


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch, padded on the right with token 0, which the mask leaves out and no label names."""
    longest = max(len(item["input_ids"]) for item in items)

    def padded(rows: Sequence[Sequence[int]], padding: int) -> Tensor:
        return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])

    ids = [item["input_ids"] for item in items]
    return {
        "input_ids": padded(ids, 0),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([item["labels"] for item in items], IGNORED),
        "pixel_values": [item["pixel_values"] for item in items],
    }
