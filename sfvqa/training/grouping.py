"""The order of rows in an epoch that puts rows of like length into a batch, so that little of it is padding."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from torch.utils.data import Sampler
from transformers import TrainerCallback, TrainerState

_BATCHES_TO_SORT = 50  # as many as transformers' own sampler, which would read every video to learn the lengths


class GroupedByLength(Sampler[int], TrainerCallback):
    """Yields the rows of an epoch, `num_together` at a time of like length; seed and epoch alone decide the order.

    The longest come first, so that memory runs out at once or not at all; the others in random order. Those that are
    left for a batch that is not full come last.
    """

    def __init__(self, lengths: Sequence[int], num_together: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._num_together, self._seed = num_together, seed
        self.epoch = 0

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:  # noqa: ARG002
        """As a callback of the trainer, which knows the epoch; a loader that goes on within one tells no sampler."""
        self.epoch = int(state.epoch or 0)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self.epoch))
        drawn = rng.permutation(len(self))
        full = len(drawn) - len(drawn) % self._num_together
        batches = []
        for start in range(0, full, _BATCHES_TO_SORT * self._num_together):
            pool = drawn[start : min(start + _BATCHES_TO_SORT * self._num_together, full)]
            by_length = pool[np.argsort(-self._lengths[pool], kind="stable")]
            batches += by_length.reshape(-1, self._num_together).tolist()
        rng.shuffle(batches)
        if batches:
            longest = max(range(len(batches)), key=lambda place: self._lengths[batches[place]].max())
            batches[0], batches[longest] = batches[longest], batches[0]
        return chain(*batches, drawn[full:].tolist())
