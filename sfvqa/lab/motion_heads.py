"""A second teacher beside the answers: read-outs that ask the decoder at visual tokens when, where, and what moves.

A question asks about motion or order only now and then, with one word of its answer. These heads ask at every fast
token, so that the decoder learns to tell time and to compare frames long before it could from answers alone. They are
thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfvqa.lab.seeing import spread
from sfvqa.lab.tiny.scenes import Direction, Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

SHAPES, DIRECTIONS = list(Shape), list(Direction)
MAX_RANK = 4  # objects of a scene
LEAST_SHARE = 0.12  # of a token (and of a window's frames) that an object takes, for it to be asked about there
ASKED = slice(-3, -1)  # of the hidden states: the inputs of the last two layers, where the text can read them
NUM_ASKED = 2
UNKNOWN = -100


@dataclass(frozen=True, eq=False)
class MotionTargets:
    """Per fast token the `directions` and `ranks` of appearance `[F, shapes]`, UNKNOWN where they cannot be seen."""

    directions: Tensor
    ranks: Tensor


@dataclass(frozen=True, eq=False)
class Track:
    """An object at `places` [T, 2], fractions of the frame, each in one of the `windows` [T] of fast tokens.

    `rank` is how many appear before it; `is_told` [windows] says where its direction can be known.
    """

    shape: Shape
    direction: Direction
    rank: int
    places: NDArray[np.float64]
    windows: NDArray[np.intp]
    is_told: NDArray[np.bool_]


def motion_targets(tracks: Iterable[Track], num_windows: int, grid: int, frames_per_window: int = 1) -> MotionTargets:
    """What can be known at each of `num_windows` · `grid`² fast tokens of a video with such tracks."""
    directions = np.full((num_windows, grid * grid, len(SHAPES)), UNKNOWN)
    ranks = directions.copy()
    for track in tracks:
        shares = np.zeros((num_windows, grid * grid))
        for cell, share in spread(track.places * grid, grid):
            np.add.at(shares, (track.windows, cell), share / frames_per_window)
        held, shape = shares > LEAST_SHARE, SHAPES.index(track.shape)
        ranks[held, shape] = track.rank
        directions[held & track.is_told[:, None], shape] = DIRECTIONS.index(track.direction)
    flat = num_windows * grid * grid
    return MotionTargets(torch.from_numpy(directions.reshape(flat, -1)), torch.from_numpy(ranks.reshape(flat, -1)))


class MotionHeads(nn.Module):
    """Linear read-outs of motion, order, window and place from the decoder's hidden states at fast tokens."""

    def __init__(self, width: int, num_windows: int, grid: int) -> None:
        super().__init__()
        self.num_windows, self.grid = num_windows, grid
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(NUM_ASKED))
        self.sizes = (len(SHAPES) * len(DIRECTIONS), len(SHAPES) * MAX_RANK, num_windows, grid * grid)
        self.heads = nn.ModuleList(nn.Linear(width, sum(self.sizes)) for _ in range(NUM_ASKED))

    def loss(self, hidden_states: Sequence[Tensor], targets: Sequence[MotionTargets]) -> Tensor:
        """Mean loss on `hidden_states` ASKED, each `[B, F, D]`, of a batch of videos."""
        directions = torch.stack([target.directions for target in targets]).to(hidden_states[0].device)
        ranks = torch.stack([target.ranks for target in targets]).to(hidden_states[0].device)
        window = torch.arange(self.num_windows, device=ranks.device).repeat_interleave(self.grid**2)
        place = torch.arange(self.grid**2, device=ranks.device).repeat(self.num_windows)
        batch = (len(targets), -1)
        losses = []
        for norm, head, hidden in zip(self.norms, self.heads, hidden_states, strict=True):
            direction, rank, when, where = head(norm(hidden)).split(self.sizes, dim=-1)
            losses += [
                _mean_loss(direction.unflatten(-1, (len(SHAPES), -1)), directions),
                _mean_loss(rank.unflatten(-1, (len(SHAPES), -1)), ranks),
                _mean_loss(when, window.expand(batch)),
                _mean_loss(where, place.expand(batch)),
            ]
        return torch.stack(losses).mean()


def _mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
    total = functional.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=UNKNOWN, reduction="sum"
    )
    return total / (targets != UNKNOWN).sum().clamp(min=1)
