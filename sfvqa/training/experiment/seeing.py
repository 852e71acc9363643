"""The stage that all cells share: vision tower and projector learn to see, on single frames, without language.

As in tiny's first stage (see training/vision_stage.py) every visual token is asked what it holds; the read-outs are
thrown away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfvqa.training.benchmark.compression import compress
from sfvqa.training.benchmark.items import TRAINING, draw_item
from sfvqa.training.benchmark.render import render
from sfvqa.training.benchmark.scenes import DIGITS, LETTERS, OBJECT_COLOURS, SIDES, BenchmarkScene, Pattern, Timeline
from sfvqa.training.pixels import as_shares, normalise, roughen
from sfvqa.training.scenes import FLASH_COLOURS, Shape
from sfvqa.training.vision_stage import spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES, GLYPHS = list(Shape), DIGITS + LETTERS
FRAMES_PER_SCENE = 6
SEEING_SEED = 1_000_000  # the scenes of this stage are none of those that cells are trained on
LOCAL = {shape.value: len(OBJECT_COLOURS) for shape in SHAPES} | {"glyph": len(GLYPHS), "gap": len(SIDES)}
"""Kinds of things that a token can hold beside nothing."""
WHOLE = {"flash": len(FLASH_COLOURS) + 1, "pulse": 2, "pattern": len(Pattern)}
"""Kinds of things that a frame shows as a whole."""


@dataclass(frozen=True, eq=False)
class Sights:
    """What is in F frames: by kind the share of each class at each token `[F, n, 1 + classes]`, 0 = nothing; and by
    kind the class of the whole frame `[F]`.
    """

    local: dict[str, Tensor]
    whole: dict[str, Tensor]

    def to(self, device: torch.device) -> Sights:
        """The same on another device."""
        return Sights(
            {name: value.to(device) for name, value in self.local.items()},
            {name: value.to(device) for name, value in self.whole.items()},
        )


def sights(scenes: list[BenchmarkScene], times: NDArray[np.float64], grid: int) -> Sights:
    """Of the frames that `scenes` show at `times` [scenes, frames of each], on `grid` × `grid` tokens."""
    per_scene = times.shape[1]
    total = len(scenes) * per_scene
    local = {name: np.zeros((total, grid * grid, classes + 1), dtype=np.float32) for name, classes in LOCAL.items()}
    whole = {name: np.zeros(total, dtype=np.int64) for name in WHOLE}
    for number, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
        first, sway = number * per_scene, scene.camera.offsets(moments)

        def mark(
            name: str,
            kind: int,
            shown: NDArray[np.intp],
            places: NDArray[np.float64],
            first: int = first,
            sway: NDArray[np.float64] = sway,
        ) -> None:
            if len(shown):
                for cell, share in spread((places + sway[shown]) * grid, grid):
                    local[name][first + shown, cell, kind + 1] = share

        for mover in scene.movers:
            shown = np.flatnonzero(moments >= mover.appears_at)
            mark(mover.shape, OBJECT_COLOURS.index(mover.colour), shown, mover.positions(moments[shown]))
        for glyph in (*scene.digits, *([scene.letter] if scene.letter else [])):
            mark("glyph", GLYPHS.index(glyph.text), np.flatnonzero(glyph.span.holds(moments)), np.array([glyph.centre]))
        if scene.ring is not None:
            shown = np.flatnonzero(scene.ring.span.holds(moments))
            mark("gap", SIDES.index(scene.ring.gap), shown, np.array([scene.ring.centre]))
        frames = slice(first, first + per_scene)
        if scene.flash is not None:
            whole["flash"][frames] = scene.flash.span.holds(moments) * (FLASH_COLOURS.index(scene.flash.colour) + 1)
        for pulse in scene.pulses:
            whole["pulse"][frames] |= pulse.holds(moments)
        whole["pattern"][frames] = np.where(whole["flash"][frames] > 0, -100, list(Pattern).index(scene.pattern))
    for shares in local.values():
        shares[..., 0] = 1 - shares.sum(-1)
    return Sights(
        {name: torch.from_numpy(value) for name, value in local.items()},
        {name: torch.from_numpy(value) for name, value in whole.items()},
    )


class SightHeads(nn.Module):
    """Linear read-outs from visual tokens [F, n, D] of what they hold and where they are."""

    def __init__(self, width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.local = nn.ModuleDict({name: nn.Linear(width, classes + 1) for name, classes in LOCAL.items()})
        self.whole = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in WHOLE.items()})
        self.place = nn.Linear(width, grid * grid)

    def loss(self, tokens: Tensor, aims: Sights) -> tuple[Tensor, dict[str, float]]:
        """Loss on visual tokens, and by kind the share of frames with such a thing that are read rightly."""
        num_frames, per_frame = tokens.shape[:2]
        losses, right = [], {}
        for name, head in self.local.items():
            shares, aim = head(tokens).log_softmax(-1), aims.local[name]
            losses.append(-(shares * aim).sum() / num_frames)
            held = aim[..., 1:].sum((1, 2)) > 0.5
            seen, true = shares.exp()[..., 1:].sum(1).argmax(-1), aim[..., 1:].sum(1).argmax(-1)
            right[name] = float((seen == true)[held].float().mean()) if held.any() else 1.0
        for name, head in self.whole.items():
            kinds, whole = head(tokens), aims.whole[name][:, None].expand(-1, per_frame)
            losses.append(functional.cross_entropy(kinds.flatten(0, 1), whole.flatten()) * 4)
            known = aims.whole[name] >= 0
            right[name] = float((kinds.sum(1).argmax(-1) == aims.whole[name])[known].float().mean())
        place = torch.arange(per_frame, device=tokens.device).expand(num_frames, -1)
        losses.append(functional.cross_entropy(self.place(tokens).flatten(0, 1), place.flatten()) * 4)
        return torch.stack(losses).sum(), right


def times_of_interest(rng: np.random.Generator, scene: BenchmarkScene) -> NDArray[np.float64]:
    """FRAMES_PER_SCENE moments in seconds: those of short events first, the others at random, in order of time."""
    seconds = scene.timeline.seconds
    spans = [glyph.span for glyph in scene.digits] + list(scene.pulses[:1])
    spans += [thing.span for thing in (scene.flash, scene.letter, scene.ring) if thing is not None]
    chosen = [float(rng.choice(seconds[span.holds(seconds)])) for span in spans][: FRAMES_PER_SCENE - 1]
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
    return normalise(roughen(read, rng)), sights(scenes, times, grid)
