"""The videos of the benchmark as a model sees them: visual tokens, made once and kept in files."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from sfvqa.lab.comparison.items import TRAINING, digest, draw_item, render
from sfvqa.lab.seeing import encode_frames
from sfvqa.lab.tiny.render import as_shares, compress, normalise
from sfvqa.lab.training_loop import save_whole

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sfvqa.lab.comparison.cells import Settings
    from sfvqa.lab.comparison.items import Item
    from sfvqa.lab.comparison.questions import BenchmarkFamily
    from sfvqa.model import SlowFastForConditionalGeneration


logger = logging.getLogger(__name__)

PER_FILE = 50


class EncodedVideos:
    """The first `count` items of TRAINING or TESTING with the visual tokens of all their moments."""

    def __init__(self, folder: Path, part: int, count: int, settings: Settings) -> None:
        self.items = [draw_item(part, 0, number, settings.timeline) for number in range(count)]
        self._folder = folder
        self._name = "training" if part == TRAINING else "testing"
        self._settings = settings
        self._paths: dict[int, Path] = {}
        self._files: dict[int, Tensor] = {}
        self._with_family: dict[BenchmarkFamily, list[int]] = {}

    def encode(self, model: SlowFastForConditionalGeneration) -> None:
        """Make what is missing; a file is written whole, so that this can stop at any time."""
        for first in range(0, len(self.items), PER_FILE):
            path = self._path(first)
            if not path.exists():
                tokens = [self._encode(item, model) for item in self.items[first : first + PER_FILE]]
                save_whole(torch.stack(tokens), path)
                logger.info("%s videos: %d of %d", self._name, first + len(tokens), len(self.items))

    def with_family(self, family: BenchmarkFamily) -> list[int]:
        """Numbers of the videos that answer a question of `family`."""
        if family not in self._with_family:
            found = [any(question.family is family for question in item.questions) for item in self.items]
            self._with_family[family] = [number for number, has in enumerate(found) if has]
        return self._with_family[family]

    def tokens(self, number: int, moments: NDArray[np.intp]) -> Tensor:
        """Visual tokens [T, h, w, D] of some moments [T] of one video."""
        first = number - number % PER_FILE
        if first not in self._files:
            self._files[first] = torch.load(self._path(first), mmap=True, weights_only=True)
        return self._files[first][number - first][torch.from_numpy(moments)].float()

    def _path(self, first: int) -> Path:
        """Named by what the scenes are: other code that draws other scenes must not find these."""
        if first not in self._paths:
            named = digest(self.items[first : first + PER_FILE])
            self._paths[first] = self._folder / f"{self._name}-{first:05d}-{named}.pt"
        return self._paths[first]

    def _encode(self, item: Item, model: SlowFastForConditionalGeneration) -> Tensor:
        frames = compress(render(item.scene, self._settings.image_size), quality=self._settings.quality)
        return model.pool(encode_frames(model, normalise(as_shares(frames))))
