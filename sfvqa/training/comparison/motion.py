"""What the base's second teacher asks: at every visual token that holds an object, which way it moved and its rank.

The read-outs are those of tiny's last stage (see training/motion_heads.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.training.motion_heads import DIRECTIONS, LEAST_SHARE, SHAPES, UNKNOWN, MotionTargets
from sfvqa.training.vision_stage import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sfvqa.training.benchmark.scenes import BenchmarkScene

LEAST_WAY = 0.12  # of the frame, before a direction can be told


def motion_targets(scene: BenchmarkScene, moments: NDArray[np.intp], grid: int) -> MotionTargets:
    """What can be known at each of the `grid`² tokens of the frames at `moments`, by one who sees no later ones."""
    times = scene.timeline.seconds[moments]
    sway = scene.camera.offsets(times)
    directions = np.full((len(moments), grid * grid, len(SHAPES)), UNKNOWN)
    ranks = directions.copy()
    for mover in scene.movers:
        shape, places = SHAPES.index(mover.shape), mover.positions(times)
        is_there = times >= mover.appears_at
        has_moved = is_there & (np.abs(places - places[is_there.argmax()]).sum(-1) > LEAST_WAY)
        rank = sum(other.appears_at < mover.appears_at for other in scene.movers)
        for cell, share in spread((places + sway) * grid, grid):
            held = is_there & (share > LEAST_SHARE)
            ranks[held, cell[held], shape] = rank
            directions[held & has_moved, cell[held & has_moved], shape] = DIRECTIONS.index(mover.direction)
    flat = len(moments) * grid * grid
    return MotionTargets(torch.from_numpy(directions.reshape(flat, -1)), torch.from_numpy(ranks.reshape(flat, -1)))
