"""What the frames of benchmark scenes show, token by token and cell by cell: what a vision tower is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sfvqa.training.backdrop import Pattern
from sfvqa.training.benchmark.scenes import DIGITS, LETTERS, OBJECT_COLOURS, PLATE_COLOURS, SIDES, Sign
from sfvqa.training.scenes import FLASH_COLOURS, Direction, Shape
from sfvqa.training.vision_stage import spread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from sfvqa.training.benchmark.scenes import BenchmarkScene

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


@dataclass(frozen=True, eq=False)
class _Thing:
    """Something at `places` [shown, 2] of the frames `shown`; by kind its classes for tokens and for cells."""

    shown: NDArray[np.intp]
    places: NDArray[np.float64]
    radius: float
    in_tokens: dict[str, int]
    in_cells: dict[str, int]


def _things(scene: BenchmarkScene, times: NDArray[np.float64]) -> Iterator[_Thing]:
    sway = scene.camera.offsets(times)
    for mover in scene.movers:
        shown = np.flatnonzero(times >= mover.appears_at)
        colour, shape = OBJECT_COLOURS.index(mover.colour), SHAPES.index(mover.shape)
        places = mover.positions(times[shown]) + sway[shown]
        yield _Thing(shown, places, mover.radius, {mover.shape: colour}, {"shape": shape, "color": colour})
    for burst in scene.bursts:
        for plate in burst.plates:
            shown = np.flatnonzero(plate.span.holds(times))
            is_ring = burst.sign is Sign.RING
            borne = {"gap": SIDES.index(Direction(plate.text))} if is_ring else {"glyph": GLYPHS.index(plate.text)}
            kinds = {"plate": PLATE_COLOURS.index(plate.colour)} | borne
            yield _Thing(shown, np.asarray(burst.centre) + sway[shown], burst.radius, kinds, kinds)


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
    per_scene, side = times.shape[1], 2 * grid
    total = len(scenes) * per_scene
    tokens = {
        name: np.zeros((total, grid * grid, classes + 1), dtype=np.float32) for name, classes in IN_TOKENS.items()
    }
    cells = {name: np.zeros((total, side * side), dtype=np.int64) for name in IN_CELLS}
    frames = {name: np.zeros(total, dtype=np.int64) for name in (*IN_FRAMES, *IN_VIEW)}
    centres = (np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) + 0.5) / side
    for number, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
        first = number * per_scene
        for thing in _things(scene, moments):
            for cell, share in spread(thing.places * grid, grid):
                for name, kind in thing.in_tokens.items():
                    tokens[name][first + thing.shown, cell, kind + 1] = share
            distances = np.hypot(*(centres[None] - thing.places[:, None]).transpose(2, 0, 1))
            frame, covered = np.nonzero(distances < COVERED * thing.radius)
            for name, kind in thing.in_cells.items():
                cells[name][first + thing.shown[frame], covered] = kind + 1
        for name, kinds in _kinds_of_frames(scene, moments):
            frames[name][first : first + per_scene] = kinds
    for shares in tokens.values():
        shares[..., 0] = 1 - shares.sum(-1)
    return Sights(_as_tensors(tokens), _as_tensors(cells), _as_tensors(frames))


def _as_tensors(arrays: dict[str, NDArray[np.float32]] | dict[str, NDArray[np.int64]]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in arrays.items()}
