"""How the weights are moved: the optimizers of every stage of training and their learning rate. Computes no loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

RISING_STEPS = 50
LAST_SHARE = 0.02  # of the learning rate, at the end


def make_optimizers(parameters: Iterable[nn.Parameter], outside: set[int]) -> list[torch.optim.Optimizer]:
    """Muon for matrices inside the network, AdamW for embeddings, convolutions, heads, gates and biases.

    `outside` holds the `id` of matrices that are not inside: Muon is not for embeddings and read-outs.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in parameters:
        is_matrix = parameter.ndim == 2 and min(parameter.shape) > 1 and id(parameter) not in outside
        (matrices if is_matrix else rest).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=1.0, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=1.0, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float, step: int, progress: float) -> None:
    """A short rise, then a cosine to 2 % of `rate`; `progress` is the share of all steps that are done."""
    rise = min(1.0, (step + 1) / RISING_STEPS)
    share = rise * (LAST_SHARE + (1 - LAST_SHARE) / 2 * (1 + float(np.cos(np.pi * progress))))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate * share
