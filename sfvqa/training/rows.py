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

from sfvqa.checkpoints.load import end_token_ids, load_tokenizer
from sfvqa.errors import CheckpointError, UsageError
from sfvqa.inference.encode import pixel_values
from sfvqa.inference.prompt import Role, Turn, around_answer, build_prompt, layout_of, question_turn
from sfvqa.model import SlowFastConfig
from sfvqa.model.families import Family, VideoLayout
from sfvqa.model.families.slowfast import FAMILY as SLOWFAST
from sfvqa.model.visual_tokens import split_video
from sfvqa.training.annotations import Example
from sfvqa.training.frozen_tower import FrozenTower, LookedAt, Looking
from sfvqa.video.clip import Clip, ClipFacts
from sfvqa.video.reading import read_clip

IGNORED = -100  # label of a token that is not learned


@dataclass(frozen=True)
class TokenRow:
    """Token ids, an IMAGE_TOKEN_ID for every fast token, and labels: the answers' own ids, else IGNORED."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


class DialogueWriter:
    """Writes conversations with a checkpoint's chat template; `end_token_ids` are those at which answering stops.

    Raises CheckpointError when the template ends an answer with none of them.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, end_token_ids: frozenset[int], family: Family = SLOWFAST
    ) -> None:
        self._tokenizer, self._family = tokenizer, family
        self._lead, behind = around_answer(tokenizer, family)
        end = next((token for token in behind if token in end_token_ids), None)
        if end is None:
            raise CheckpointError(
                "The chat template does not end an answer with a token that stops generation.",
                "Check the chat template, and eos_token_id in generation_config.json.",
            )
        self._end = end

    @classmethod
    def of(cls, folder: Path, config: SlowFastConfig) -> "DialogueWriter":
        """That of a checkpoint folder, whose weights are not read; it leaves it to others to warn of long rows."""
        tokenizer = load_tokenizer(folder, config)
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        return cls(tokenizer, end_token_ids(folder, tokenizer, config), config.family)

    def rows(self, example: Example, layout: VideoLayout) -> list[TokenRow]:
        """One row for a conversation; another from where a template shows earlier turns otherwise than it asked them.

        `layout` is what stands for the video; the number of rows does not depend on it.
        """
        rows: list[TokenRow] = []
        ids: tuple[int, ...] = ()
        labels: tuple[int, ...] = ()
        turns = [] if example.system is None else [Turn(Role.SYSTEM, example.system)]
        for number, (question, answer) in enumerate(example.turns):
            turns.append(question_turn(question, shows_video=number == 0 and example.video is not None))
            prompt = tuple(build_prompt(self._tokenizer, turns, self._family, layout))
            if prompt[: len(ids)] != ids:
                rows.append(TokenRow(ids, labels))
                ids, labels = (), ()
            learned = (*self._text_ids(f"{self._lead}{answer}"), self._end)
            labels = (*labels, *[IGNORED] * (len(prompt) - len(ids)), *learned)
            ids = (*prompt, *learned)
            turns.append(Turn(Role.ASSISTANT, answer))
        return [*rows, TokenRow(ids, labels)]

    def _text_ids(self, text: str) -> list[int]:
        """The ids of a turn's text, as prompts have them."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids


logger = logging.getLogger(__name__)


class VideoDataset(Dataset[dict[str, Any]]):
    """One item a row: `input_ids`, `labels`, and `pixel_values` `[T, 3, S, S]`, None without a video.

    With `frozen` set, an item has in their place how its video was `looked` at.
    A row is written when its video has been read, for the frames that it has turned out to have. Raises UsageError when
    built for rows that are too long, as far as these frames are known.
    """

    def __init__(
        self, examples: Sequence[Example], writer: DialogueWriter, config: SlowFastConfig, looking: Looking
    ) -> None:
        self._writer, self._config, self.looking = writer, config, looking
        self.frozen: FrozenTower | None = None
        self._places: list[tuple[Example, int]] = []
        self.lengths: list[int] = []
        """Tokens of each row; of one frame where a video's are not known."""
        for example in examples:
            rows = self.rows_of(example)
            self._places += [(example, number) for number in range(len(rows))]
            self.lengths += [len(row.ids) for row in rows]
        known = zip((example for example, _ in self._places), self.lengths, strict=True)
        check_lengths(((each, length) for each, length in known if not each.video or each.timestamps_seconds), config)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one row; VideoError for a video that cannot be read, UsageError for a row that is too long."""
        return self.item(*self._places[index])

    def rows_of(self, example: Example) -> list[TokenRow]:
        """The rows of an example before its video is read: as they will be if its frames are known."""
        times = example.timestamps_seconds or (0.0,)
        return self._writer.rows(example, video_layout(times, example.duration_seconds, self._config))

    def item(self, example: Example, number: int) -> dict[str, Any]:
        """One row of an example; errors as for `__getitem__`."""
        rows, looked = self.conversation(example)
        item = {"input_ids": rows[number].ids, "labels": rows[number].labels, "pixel_values": None}
        if self.frozen is not None:
            return item | {"looked": looked}
        return item | {"pixel_values": None if looked is None else looked.pixel_values}

    def conversation(self, example: Example) -> tuple[list[TokenRow], LookedAt | None]:
        """All rows of an example, and its video; errors as for one row."""
        looked: LookedAt | None = None
        layout: VideoLayout = ()
        if example.video is not None:
            looked = self.look(example.video)
            facts = looked.facts
            layout = video_layout(facts.timestamps_seconds, facts.video.duration_seconds, self._config)
        rows = self._writer.rows(example, layout)
        check_lengths([(example, len(row.ids)) for row in rows], self._config)
        return rows, looked

    def look(self, video: Path) -> LookedAt:
        """What is kept of a video or, read now, the pixel values of its frames."""
        content = None
        if self.frozen is not None:
            if (kept := self.frozen.load(video)) is not None:
                return kept
            content = self.frozen.content_of(video)
        clip = self._read(video)
        facts = ClipFacts(**{name: value for name, value in vars(clip).items() if name != "frames"})
        return LookedAt(facts, pixel_values(clip.frames, self._config.vision), content=content)

    def _read(self, video: Path) -> Clip:
        looking = self.looking
        fit = self._config.family.fit(self._config.vision, looking.crop)
        clip = read_clip(video, looking.sampling, reading=looking.reading, fit=fit)
        for warning in clip.warnings:
            logger.warning("%s: %s", video, warning)
        return clip


def video_layout(timestamps_seconds: Sequence[float], duration_seconds: float, config: SlowFastConfig) -> VideoLayout:
    """What stands in a prompt for a video whose frames are shown at these times."""
    num_fast = num_fast_tokens(len(timestamps_seconds), config)
    return layout_of(num_fast, timestamps_seconds, duration_seconds, config)


def check_lengths(lengths: Iterable[tuple[Example, int]], config: SlowFastConfig) -> None:
    """Raise UsageError, naming the first, if a row of so many tokens has no room in the model."""
    positions = int(config.decoder_config.max_position_embeddings)
    if too_long := [(example.called, length) for example, length in lengths if length > positions]:
        name, length = too_long[0]
        others = f"; rows that are too long: {len(too_long)}" if len(too_long) > 1 else ""
        raise UsageError(
            f"{name} takes {length} tokens, but the model has only {positions} positions{others}.",
            "Shorten or remove them, take fewer frames, or average the fast tokens over more when converting.",
        )


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
    looked = {"looked": [item["looked"] for item in items]} if "looked" in items[0] else {}
    return {
        "input_ids": padded(ids, 0),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded([item["labels"] for item in items], IGNORED),
        "pixel_values": [item["pixel_values"] for item in items],
        **looked,
    }
