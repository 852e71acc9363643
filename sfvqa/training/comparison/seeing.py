"""The stage that all cells share: vision tower and projector learn to see, on single frames, without language.

As in tiny's first stage (see training/vision_stage.py) every visual token is asked what it holds; the read-outs are
thrown away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfvqa.training.benchmark.compression import compress
from sfvqa.training.benchmark.items import TRAINING, draw_item
from sfvqa.training.benchmark.render import render
from sfvqa.training.comparison.sights import IN_CELLS, IN_FRAMES, IN_TOKENS, IN_VIEW, Sights, sights_of
from sfvqa.training.pixels import as_shares, normalise, roughen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sfvqa.training.benchmark.scenes import BenchmarkScene, Timeline

FRAMES_PER_SCENE, MOST_PLATES = 6, 4
SEEING_SEED = 1_000_000  # the scenes of this stage are none of those that cells are trained on
CELL_WEIGHT, FRAME_WEIGHT, VIEW_WEIGHT = 0.5, 4.0, 1.0  # of the losses, beside those of the tokens


class SightHeads(nn.Module):
    """Linear read-outs from visual tokens [F, n, D] of what they hold and where they are, and from cells [F, m, C]."""

    def __init__(self, feature_width: int, width: int, grid: int) -> None:
        super().__init__()
        self.tokens = nn.ModuleDict({name: nn.Linear(width, classes + 1) for name, classes in IN_TOKENS.items()})
        self.cells = nn.ModuleDict({name: nn.Linear(feature_width, classes + 1) for name, classes in IN_CELLS.items()})
        self.frames = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in IN_FRAMES.items()})
        self.view = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in IN_VIEW.items()})
        self.place = nn.Linear(width, grid * grid)

    def loss(self, features: Tensor, tokens: Tensor, aims: Sights) -> tuple[Tensor, dict[str, float]]:
        """Loss on the tower's features [F, cells, C] and on visual tokens [F, n, D]; and by kind the share of frames
        with such a thing that tokens tell rightly.
        """
        num_frames, per_frame = tokens.shape[:2]
        losses, right = [], {}
        for name, head in self.tokens.items():
            shares, aim = head(tokens).log_softmax(-1), aims.tokens[name]
            losses.append(-(shares * aim).sum() / num_frames)
            held = aim[..., 1:].sum((1, 2)) > 0.5
            seen, true = shares.exp()[..., 1:].sum(1).argmax(-1), aim[..., 1:].sum(1).argmax(-1)
            right[name] = float((seen == true)[held].float().mean()) if held.any() else 1.0
        for name, head in self.cells.items():
            kinds = head(features).flatten(0, 1)
            summed = functional.cross_entropy(kinds, aims.cells[name].flatten(), reduction="sum")
            losses.append(CELL_WEIGHT * summed / num_frames)
        for name, head in self.frames.items():
            told, right[name] = _by_every_token(head(tokens), aims.frames[name])
            losses.append(FRAME_WEIGHT * told)
        views = [_by_every_token(head(tokens), aims.frames[name]) for name, head in self.view.items()]
        losses += [VIEW_WEIGHT * told for told, _ in views]
        right["view"] = sum(share for _, share in views) / len(views)
        # Slow tokens carry no positions, and fast ones learn theirs from order alone only after long training.
        place = torch.arange(per_frame, device=tokens.device).expand(num_frames, -1)
        losses.append(FRAME_WEIGHT * functional.cross_entropy(self.place(tokens).flatten(0, 1), place.flatten()))
        return torch.stack(losses).sum(), right


def _by_every_token(kinds: Tensor, aim: Tensor) -> tuple[Tensor, float]:
    """Loss of `kinds` [F, n, classes] where every token should tell `aim` [F]; share of frames in which most do."""
    every = aim[:, None].expand(-1, kinds.shape[1])
    loss = functional.cross_entropy(kinds.flatten(0, 1), every.flatten())
    return loss, float((kinds.sum(1).argmax(-1) == aim)[aim >= 0].float().mean())


def times_of_interest(rng: np.random.Generator, scene: BenchmarkScene) -> NDArray[np.float64]:
    """FRAMES_PER_SCENE moments in seconds: some of short events first, the others at random, in order of time."""
    seconds = scene.timeline.seconds
    plates = [plate.span for burst in scene.bursts for plate in burst.plates]
    spans = [plates[int(number)] for number in rng.permutation(len(plates))[:MOST_PLATES]]
    spans += [scene.flash.span] if scene.flash else []
    spans += list(scene.pulses[:1])
    chosen = [float(rng.choice(seconds[span.holds(seconds)])) for span in spans]
    chosen += [float(rng.choice(seconds)) for _ in range(FRAMES_PER_SCENE - len(chosen))]
    return np.sort(np.array(chosen))


def seeing_batch(step: int, num_scenes: int, size: int, grid: int, timeline: Timeline) -> tuple[Tensor, Sights]:
    """Pixel values [F, 3, size, size] that went through an encoder, and what is in them; a function of `step` alone."""
    rng = np.random.default_rng([SEEING_SEED, step])
    first = step * num_scenes
    scenes = [draw_item(TRAINING, SEEING_SEED, first + number, timeline).scene for number in range(num_scenes)]
    times = np.stack([times_of_interest(rng, scene) for scene in scenes])
    frames = np.concatenate([render(scene, size, moments) for scene, moments in zip(scenes, times, strict=True)])
    read = as_shares(compress(frames, quality=int(rng.integers(16, 28))))
    return normalise(roughen(read, rng)), sights_of(scenes, times, grid)
