"""How a vision tower learns to see: what each of its tokens and cells holds, of things at known places."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from sfvqa.model import SlowFastForConditionalGeneration


@dataclass(frozen=True, eq=False)
class Thing:
    """Something at `places` [shown, 2] of the frames `shown`, and by kind its class for tokens and for cells.

    It covers the cells within `radius` of its place or, where that is a pair, in a box so far to each side.
    """

    shown: NDArray[np.intp]
    places: NDArray[np.float64]
    radius: float | tuple[float, float]
    in_tokens: Mapping[str, int]
    in_cells: Mapping[str, int]


def mark(
    things: Iterable[Thing],
    grid: int,
    first: int,
    tokens: Mapping[str, NDArray[np.float32]],
    cells: Mapping[str, NDArray[np.int64]],
) -> None:
    """Enter `things` of the frames from `first` on.

    By kind, `tokens` [F, grid², 1 + classes] get the share of a thing that lies at each token, and `cells`
    [F, 4 · grid²], which are pooled two by two into tokens, 1 + the class of what covers them.
    """
    side = 2 * grid
    centres = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) / side
    for thing in things:
        for cell, share in spread(thing.places * grid, grid):
            for name, kind in thing.in_tokens.items():
                tokens[name][first + thing.shown, cell, kind + 1] = share
        apart = centres[None] - thing.places[:, None]
        if isinstance(thing.radius, tuple):
            is_covered = (np.abs(apart) < thing.radius).all(-1)
        else:
            is_covered = np.hypot(*apart.transpose(2, 0, 1)) < thing.radius
        frame, covered = np.nonzero(is_covered)
        for name, kind in thing.in_cells.items():
            cells[name][first + thing.shown[frame], covered] = kind + 1


def spread(places: NDArray[np.float64], grid: int) -> list[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    """The four tokens near each of `places` [F, 2] (in tokens) and the share of each, as (token index, share).

    A thing between two tokens belongs to each in the share that it is near, so that an average over frames still
    tells where it was.
    """
    inner = np.clip(places - 0.5, 0.0, grid - 1.0)
    corner = np.minimum(inner.astype(np.intp), grid - 2)
    share = inner - corner
    near = []
    for right in (0, 1):
        for down in (0, 1):
            weight = (share[:, 0] if right else 1 - share[:, 0]) * (share[:, 1] if down else 1 - share[:, 1])
            near.append(((corner[:, 1] + down) * grid + corner[:, 0] + right, weight))
    return near


def see(model: SlowFastForConditionalGeneration, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The tower's features [F, cells, C], visual tokens before pooling [F, cells, D] and after it [F, n, D].

    Computed in bfloat16, given in float32, with gradients.
    """
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        features = model.vision_tower(pixels.to(model.device))
        tokens = model.projector(features).float()
    return features.float().flatten(1, 2), tokens.flatten(1, 2), model.pool(tokens).flatten(1, 2)


@torch.no_grad()
def encode_frames(model: SlowFastForConditionalGeneration, pixels: Tensor, chunk_size: int = 64) -> Tensor:
    """Visual tokens [T, h, w, D] before pooling, in bfloat16, which halves time and memory, on the CPU."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        parts = list(model.encode_frames(pixels.split(chunk_size)))
    return torch.cat(parts).to("cpu", torch.bfloat16)
