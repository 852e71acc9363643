"""What the vision tower is taught: what frames of benchmark scenes show, token by token and cell by cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfvqa.lab.comparison.items import TRAINING, draw_item, render
from sfvqa.lab.comparison.scenes import DIGITS, LETTERS, OBJECT_COLOURS, PLATE_COLOURS, SIDES, Sign
from sfvqa.lab.seeing import Thing, mark
from sfvqa.lab.tiny.render import as_shares, compress, normalise, roughen
from sfvqa.lab.tiny.scenes import FLASH_COLOURS, Direction, Pattern, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sfvqa.lab.comparison.scenes import BenchmarkScene, Timeline


SHAPES, GLYPHS = list(Shape), DIGITS + LETTERS
_ON_PLATES = {"plate": len(PLATE_COLOURS), "glyph": len(GLYPHS), "gap": len(SIDES)}
IN_TOKENS = {shape.value: len(OBJECT_COLOURS) for shape in SHAPES} | _ON_PLATES
"""Kinds of things that a token can hold, and how many there are of each."""
IN_CELLS = {"shape": len(SHAPES), "color": len(OBJECT_COLOURS)} | _ON_PLATES
"""Kinds of things that can cover a cell of the feature map."""
IN_FRAMES = {"flash": len(FLASH_COLOURS) + 1, "pulse": 2, "pattern": len(Pattern)}
"""Kinds of things that a frame shows as a whole."""
AXES = ("column", "row")
IN_VIEW = {f"{shape}_{axis}": 4 for shape in SHAPES for axis in AXES}
"""Where each shape is in the frame, which every token is to tell: nowhere, at the low end, between, at the high end.

Slow tokens carry neither time nor place, so that what is seen beside a digit must be found in the digit's own tokens.
"""
LOW_END, HIGH_END = 0.42, 0.58
UNKNOWN = -100  # the pattern, where a flash hides it
FRAMES_PER_SCENE, MOST_PLATES = 6, 4
SEEING_SEED = 1_000_000  # the scenes of this stage are none of those that cells are trained on
CELL_WEIGHT, FRAME_WEIGHT, VIEW_WEIGHT = 0.5, 4.0, 1.0  # of the losses, beside those of the tokens
COVERED = 0.95  # of a thing's radius: whose cells are its own


@dataclass(frozen=True, eq=False)
class Sights:
    """What is in F frames, by kind: the share of each class at each token `[F, n, 1 + classes]`, 0 = nothing, so that
    an average over frames still tells where a thing was; the class that covers each cell `[F, cells]`, 0 = none; and
    the class of the whole frame and of what is in view `[F]`.
    """

    tokens: dict[str, Tensor]
    cells: dict[str, Tensor]
    frames: dict[str, Tensor]

    def to(self, device: torch.device) -> Sights:
        """The same on another device."""
        parts = (self.tokens, self.cells, self.frames)
        return Sights(*({name: value.to(device) for name, value in part.items()} for part in parts))


def _things(scene: BenchmarkScene, times: NDArray[np.float64]) -> Iterator[Thing]:
    sway = scene.camera.offsets(times)
    for mover in scene.movers:
        shown = np.flatnonzero(times >= mover.appears_at)
        colour, shape = OBJECT_COLOURS.index(mover.colour), SHAPES.index(mover.shape)
        places = mover.positions(times[shown]) + sway[shown]
        yield Thing(shown, places, COVERED * mover.radius, {mover.shape: colour}, {"shape": shape, "color": colour})
    for burst in scene.bursts:
        for plate in burst.plates:
            shown = np.flatnonzero(plate.span.holds(times))
            is_ring = burst.sign is Sign.RING
            borne = {"gap": SIDES.index(Direction(plate.text))} if is_ring else {"glyph": GLYPHS.index(plate.text)}
            kinds = {"plate": PLATE_COLOURS.index(plate.colour)} | borne
            yield Thing(shown, np.asarray(burst.centre) + sway[shown], COVERED * burst.radius, kinds, kinds)


def _kinds_of_frames(scene: BenchmarkScene, times: NDArray[np.float64]) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """By name of IN_FRAMES and IN_VIEW the class of each frame."""
    flashes, pulses = np.zeros(len(times), dtype=np.intp), np.zeros(len(times), dtype=np.intp)
    if scene.flash is not None:
        flashes[scene.flash.span.holds(times)] = FLASH_COLOURS.index(scene.flash.colour) + 1
    for pulse in scene.pulses:
        pulses[pulse.holds(times)] = 1
    yield "flash", flashes
    yield "pulse", pulses
    yield "pattern", np.where(flashes > 0, UNKNOWN, list(Pattern).index(scene.pattern))
    sway = scene.camera.offsets(times)
    for mover in scene.movers:
        ends = 1 + np.digitize(mover.positions(times) + sway, (LOW_END, HIGH_END))
        for axis, end in zip(AXES, ends.T, strict=True):
            yield f"{mover.shape}_{axis}", np.where(times >= mover.appears_at, end, 0)


def sights_of(scenes: list[BenchmarkScene], times: NDArray[np.float64], grid: int) -> Sights:
    """Of the frames that `scenes` show at `times` [scenes, frames of each], on `grid`² tokens and 4 · `grid`² cells."""
    per_scene = times.shape[1]
    total = len(scenes) * per_scene
    tokens = {
        name: np.zeros((total, grid * grid, classes + 1), dtype=np.float32) for name, classes in IN_TOKENS.items()
    }
    cells = {name: np.zeros((total, 4 * grid * grid), dtype=np.int64) for name in IN_CELLS}
    frames = {name: np.zeros(total, dtype=np.int64) for name in (*IN_FRAMES, *IN_VIEW)}
    for number, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
        first = number * per_scene
        mark(_things(scene, moments), grid, first, tokens, cells)
        for name, kinds in _kinds_of_frames(scene, moments):
            frames[name][first : first + per_scene] = kinds
    for shares in tokens.values():
        shares[..., 0] = 1 - shares.sum(-1)
    return Sights(_as_tensors(tokens), _as_tensors(cells), _as_tensors(frames))


def _as_tensors(arrays: dict[str, NDArray[np.float32]] | dict[str, NDArray[np.int64]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}


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
