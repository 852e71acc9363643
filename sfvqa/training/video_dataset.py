"""Rows about videos, read and normalised as for a question; and a batch of them, padded."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from sfvqa.errors import UsageError
from sfvqa.inference.preprocess import pixel_values
from sfvqa.model.visual_tokens import split_video
from sfvqa.training.dialogue import IGNORED
from sfvqa.video.fitting import FitSquare
from sfvqa.video.reading import read_clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from torch import Tensor

    from sfvqa.model import SlowFastConfig
    from sfvqa.training.annotations import Example
    from sfvqa.training.dialogue import DialogueWriter
    from sfvqa.video.fitting import CropMode
    from sfvqa.video.readers import ReadOptions
    from sfvqa.video.sampling import SamplingOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Looking:
    """How the videos are looked at; the same to ask about them later."""

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
        """Read one; VideoError for a video that cannot be read after all, UsageError for a row that is too long."""
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
                f"Example {name} takes {length} tokens, and the model has {positions} positions{others}.",
                "Shorten or remove them, take fewer frames, or average the fast tokens over more when converting.",
            )

    def _read(self, video: Path) -> Tensor:
        looking, vision = self._looking, self._config.vision
        clip = read_clip(
            video, looking.sampling, reading=looking.reading, fit=FitSquare(vision.image_size, looking.crop)
        )
        for warning in clip.warnings:
            logger.warning("%s: %s", video, warning)
        return pixel_values(clip.frames, vision)


def num_fast_tokens(num_frames: int, config: SlowFastConfig) -> int:
    """How many fast tokens a video of so many frames becomes."""
    side = config.grid_side(num_frames)
    return len(split_video(torch.empty(num_frames, side, side, 1), config).fast)


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
