"""Stage 1: the vision tower and projector learn to see, on single frames, before any language is involved.

Every visual token is asked where it is and what it holds: which shapes of which colour, which digit, which flash, or
nothing of all that because the frame is of another video (see other_videos.py). The tokens of an only frame are not
pooled: what covers each of them is asked as well. The heads that read this off are thrown away afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfvqa.lab.seeing import Thing, mark
from sfvqa.lab.tiny.other_videos import OtherKind
from sfvqa.lab.tiny.render import as_filmed, training_pixels
from sfvqa.lab.tiny.scenes import DIGIT_RADIUS, FLASH_COLOURS, NUM_FRAMES, Colour, Scene, Shape, random_scene

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sfvqa.lab.tiny.other_videos import OtherClip, OtherVideos

SHAPES, COLOURS = list(Shape), list(Colour)
FRAMES_PER_SCENE = 6
OTHERS_PER_SCENE = 0.25  # other videos for each scene
CELL_KINDS = {"shape": len(SHAPES) + 1, "colour": len(COLOURS) + 1, "digit": 11}
DIGIT_BOX = (0.6 * DIGIT_RADIUS, 0.9 * DIGIT_RADIUS)
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class DenseTargets:
    """What each visual token holds, as shares that sum to 1 with 0 = nothing first. F frames, n tokens a frame."""

    objects: Tensor  # [F, n, shapes, 1 + colours]
    digits: Tensor  # [F, n, 11]
    flashes: Tensor  # [F] index, 0 = none
    cells: Tensor  # [F, cells, 3] index of the shape, colour and digit that cover a cell of the feature map, 0 = none
    others: Tensor  # [F] 1 for a frame of another video, 0 for one of a scene, UNKNOWN where a frame cannot tell

    def to(self, device: torch.device) -> DenseTargets:
        """The same on another device."""
        return DenseTargets(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class DenseHeads(nn.Module):
    """Linear read-outs of the dense targets from pooled and unpooled visual tokens and from the tower's features."""

    def __init__(self, feature_width: int, width: int, grid: int) -> None:
        super().__init__()
        self.objects = nn.Linear(width, len(SHAPES) * (len(COLOURS) + 1))
        self.amounts = nn.Linear(width, len(SHAPES) * len(COLOURS))
        self.digits = nn.Linear(width, 11)
        self.flashes = nn.Linear(width, len(FLASH_COLOURS) + 1)
        self.others = nn.Linear(width, 1)
        self.cells = nn.ModuleList(nn.Linear(size, sum(CELL_KINDS.values())) for size in (feature_width, width))
        self.places = nn.Linear(width, 2 * grid)
        self.cell_places = nn.Linear(width, 4 * grid)

    def loss(
        self, features: Tensor, cell_tokens: Tensor, tokens: Tensor, targets: DenseTargets
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss and the share of frames read rightly by kind.

        `features` [F, cells, C] are the tower's, `cell_tokens` [F, cells, D] visual tokens before pooling, `tokens`
        [F, n, D] after it.
        """
        frames, per_frame = tokens.shape[:2]
        objects = self.objects(tokens).unflatten(-1, (len(SHAPES), -1)).log_softmax(-1)
        amounts = self.amounts(tokens).unflatten(-1, (len(SHAPES), -1))
        digits = self.digits(tokens).log_softmax(-1)
        flashes = self.flashes(tokens)
        flash_aim = targets.flashes[:, None].expand(frames, per_frame)
        loss = (
            -(objects * targets.objects).sum() / frames
            + 4 * ((amounts - targets.objects[..., 1:]) ** 2).sum() / frames
            - (digits * targets.digits).sum() / frames
            + functional.cross_entropy(flashes.flatten(0, 1), flash_aim.flatten(), reduction="sum") / (4 * frames)
        )
        for head, seen in zip(self.cells, (features, cell_tokens), strict=True):
            for part, aim in zip(
                head(seen).split(list(CELL_KINDS.values()), -1), targets.cells.unbind(-1), strict=True
            ):
                cell_loss = functional.cross_entropy(part.flatten(0, 1), aim.flatten(), reduction="sum")
                loss = loss + 0.5 * cell_loss / frames
        # Slow tokens carry no positions, and fast ones learn theirs from order alone only after long training.
        place_loss, at_place = _place_loss(self.places(tokens))
        loss = loss + 0.25 * place_loss + 0.1 * _place_loss(self.cell_places(cell_tokens))[0]
        others = self.others(tokens).squeeze(-1)
        told = targets.others != UNKNOWN
        other_aim = targets.others[told][:, None].expand(-1, per_frame).to(others)
        loss = loss + functional.binary_cross_entropy_with_logits(others[told], other_aim, reduction="sum") / (
            4 * frames
        )
        with torch.no_grad():
            right = {
                "place": at_place,
                "objects": (_found(objects) == _found(targets.objects.clamp_min(1e-9).log())).all(1),
                "digit": _found(digits) == _found(targets.digits.clamp_min(1e-9).log()),
                "flash": (flashes.argmax(-1) == flash_aim).all(1),
                "other": (others.mean(1) > 0)[told] == targets.others[told].bool(),
            }
        return loss, {name: float(value.float().mean()) for name, value in right.items()}


def _place_loss(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss a frame of columns and rows, read from [F, n, 2 · side], and whether a frame has all right [F]."""
    columns, rows = logits.chunk(2, dim=-1)
    frames, per_frame, side = columns.shape
    place = torch.arange(per_frame, device=logits.device).expand(frames, -1)
    column, row = place % side, place // side
    loss = sum(
        functional.cross_entropy(part.flatten(0, 1), aim.flatten(), reduction="sum") / frames
        for part, aim in ((columns, column), (rows, row))
    )
    assert isinstance(loss, Tensor)
    return loss, ((columns.argmax(-1) == column) & (rows.argmax(-1) == row)).all(1)


def _found(shares: Tensor) -> Tensor:
    """From log shares [F, n, …, 1 + kinds] the kind that a frame holds in sum, 0 where that is less than a half."""
    mass = shares.exp()[..., 1:].sum(1)
    return torch.where(mass.sum(-1) > 0.5, mass.argmax(-1) + 1, 0)


def dense_targets(scenes: list[Scene], times: NDArray[np.float64], grid: int) -> DenseTargets:
    """Targets of the frames that `scenes` show at `times` [scenes, frames of each]."""
    num_frames = times.shape[1]
    total = len(scenes) * num_frames
    objects = np.zeros((total, grid * grid, len(SHAPES), len(COLOURS) + 1), dtype=np.float32)
    digits = np.zeros((total, grid * grid, 11), dtype=np.float32)
    flashes = np.zeros(total, dtype=np.int64)
    cells = np.zeros((total, 4 * grid * grid, len(CELL_KINDS)), dtype=np.int64)
    in_tokens = {shape.value: objects[:, :, number] for number, shape in enumerate(SHAPES)} | {"digit": digits}
    in_cells = {name: cells[..., number] for number, name in enumerate(CELL_KINDS)}
    for number, (scene, moments) in enumerate(zip(scenes, times, strict=True)):
        first = number * num_frames
        mark(_things(scene, moments), grid, first, in_tokens, in_cells)
        if scene.flash is not None:
            flashes[first + np.flatnonzero(moments == scene.flash.frame)] = FLASH_COLOURS.index(scene.flash.colour) + 1
    objects[..., 0] = 1 - objects.sum(-1)
    digits[..., 0] = 1 - digits.sum(-1)
    arrays = (objects, digits, flashes, cells, np.zeros(total, dtype=np.int64))
    return DenseTargets(*map(torch.from_numpy, arrays))


def _things(scene: Scene, moments: NDArray[np.float64]) -> Iterator[Thing]:
    sway = scene.sway(moments)
    for item in scene.objects:
        shown = np.flatnonzero(moments >= item.appears_at)
        shape, colour = SHAPES.index(item.shape), COLOURS.index(item.colour)
        places = item.positions(moments[shown]) + sway[shown]
        yield Thing(shown, places, 0.95 * item.radius, {item.shape: colour}, {"shape": shape, "colour": colour})
    if scene.digit is not None:
        card = scene.digit
        shown = np.flatnonzero((moments >= card.frame) & (moments < card.frame + card.num_frames))
        kind = {"digit": card.value}
        yield Thing(shown, np.asarray(card.centre) + sway[shown], DIGIT_BOX, kind, kind)


def _nothing(clips: list[OtherClip], grid: int) -> DenseTargets:
    """Targets of frames in which nothing of a scene is to be seen."""
    total = sum(len(clip.frames) for clip in clips)
    objects = torch.zeros(total, grid * grid, len(SHAPES), len(COLOURS) + 1)
    digits = torch.zeros(total, grid * grid, 11)
    objects[..., 0] = digits[..., 0] = 1
    cells = torch.zeros(total, 4 * grid * grid, 3, dtype=torch.int64)
    told = [UNKNOWN if clip.kind is OtherKind.PLAIN else 1 for clip in clips for _ in clip.frames]
    return DenseTargets(objects, digits, torch.zeros(total, dtype=torch.int64), cells, torch.tensor(told))


def frames_of_interest(rng: np.random.Generator, scene: Scene) -> NDArray[np.float64]:
    """FRAMES_PER_SCENE times: those of flash and digit if there are any, the others at random."""
    times = rng.permutation(NUM_FRAMES)[:FRAMES_PER_SCENE].astype(np.float64)
    if scene.flash is not None:
        times[0] = scene.flash.frame
    if scene.digit is not None:
        times[1] = scene.digit.frame
        times[2] = scene.digit.frame if rng.random() < 0.3 else times[2]
    return times


def dense_batch(
    rng: np.random.Generator, num_scenes: int, size: int, grid: int, others: OtherVideos
) -> tuple[Tensor, DenseTargets]:
    """Pixel values [F, 3, size, size] of random frames, of scenes and of `others`, and what their tokens hold."""
    scenes = [random_scene(rng) for _ in range(num_scenes)]
    times = np.stack([frames_of_interest(rng, scene) for scene in scenes])
    pixels = [training_pixels(scene, size, t, rng) for scene, t in zip(scenes, times, strict=True)]
    clips = [others.draw(rng, size, FRAMES_PER_SCENE) for _ in range(round(num_scenes * OTHERS_PER_SCENE))]
    pixels += [as_filmed(clip.frames, rng) for clip in clips]
    parts = [dense_targets(scenes, times, grid)] + ([_nothing(clips, grid)] if clips else [])
    fields = DenseTargets.__dataclass_fields__
    return torch.cat(pixels), DenseTargets(*(torch.cat([getattr(part, name) for part in parts]) for name in fields))
