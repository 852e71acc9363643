"""Dense targets say what is where, and reading them back off perfect logits counts as right."""

from dataclasses import replace

import numpy as np
import torch

from sfvqa.lab.tiny.render import render
from sfvqa.lab.tiny.scenes import (
    Backdrop,
    Camera,
    Colour,
    DigitCard,
    Direction,
    Flash,
    Pattern,
    Scene,
    SceneObject,
    Shape,
    Shot,
)
from sfvqa.lab.tiny.vision_stage import (
    COLOURS,
    FRAMES_PER_SCENE,
    SHAPES,
    UNKNOWN,
    DenseHeads,
    dense_batch,
    dense_targets,
)
from tests.lab.tiny.some_pictures import some_other_videos

DARK = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
# Moves from the middle of the first token of the second row to that of its third token; appears at 10.
STAR = SceneObject(Shape.STAR, Colour.BLUE, 0.1, Direction.RIGHT, (0.125, 0.375), (0.625, 0.375), 10.0)
SCENE = Scene((STAR,), DARK, Flash(Colour.GREEN, 0), DigitCard(4, 31, 1, (0.75, 0.875)))


def test_targets_follow_the_object() -> None:
    targets = dense_targets([SCENE], np.array([[0.0, 10.0, 31.0]]), grid=4)
    kind = (SHAPES.index(Shape.STAR), COLOURS.index(Colour.BLUE) + 1)
    shares = targets.objects[:, :, kind[0], kind[1]]
    assert shares[0].sum() == 0
    assert shares[1].argmax() == 4
    assert shares[2].argmax() == 6
    torch.testing.assert_close(shares[1:].sum(1), torch.ones(2))
    torch.testing.assert_close(targets.objects.sum(-1), torch.ones(3, 16, len(SHAPES)))
    assert targets.flashes.tolist() == [2, 0, 0]
    digits = targets.digits[..., 5]
    assert digits[:2].sum() == 0
    assert set(digits[2].nonzero().flatten().tolist()) == {14, 15}  # halfway between the last two tokens below
    cells = targets.cells
    assert (cells[0] == 0).all()
    assert cells[1, :, 0].unique().tolist() == [0, SHAPES.index(Shape.STAR) + 1]
    assert cells[2, :, 2].unique().tolist() == [0, 5]


def test_targets_follow_the_camera() -> None:
    """Else tokens beside the one that shows a thing would be asked for it."""
    camera = Camera((0.25, 0.0), 0.0, 4.0, 0.0)  # a quarter of its period shifts by all its reach: one token
    shots = (Shot(0.0, ((0.1, 0.1, 0.1), (0.3, 0.3, 0.3)), 3.0, (0.0, 0.0), (0.0, 0.0)),)
    resting = replace(STAR, end=STAR.start, appears_at=0.0)
    scene = Scene((resting,), DARK, None, DigitCard(4, 0, 9, (0.375, 0.875)), Backdrop(Pattern.PLAIN, shots, camera))
    targets = dense_targets([scene], np.array([[0.0, 1.0]]), grid=4)
    star = targets.objects[:, :, SHAPES.index(Shape.STAR), COLOURS.index(Colour.BLUE) + 1]
    assert star.argmax(1).tolist() == [4, 5]
    assert targets.digits[..., 5].argmax(1).tolist() == [13, 14]
    columns = [np.flatnonzero(targets.cells[frame, :, 2].numpy()) % 8 for frame in (0, 1)]
    assert columns[1].mean() - columns[0].mean() == 2
    frames = render(scene, 64, np.array([0.0, 1.0])).astype(int)
    blue = [np.argwhere(frame[..., 2] - frame[..., 0] > 100)[:, 1].mean() for frame in frames]
    assert abs(blue[1] - blue[0] - 16) < 0.5


def test_loss_falls_and_perfect_reading_is_right() -> None:
    """A token that carries its own target as features can be read by linear heads, so the loss must go down."""
    torch.manual_seed(0)
    _, targets = dense_batch(np.random.default_rng(0), 4, 64, 4, some_other_videos())
    frames = len(targets.flashes)
    known = torch.cat(
        [
            targets.objects.flatten(2),
            targets.digits,
            torch.nn.functional.one_hot(targets.flashes, 6).float()[:, None].expand(frames, 16, 6),
            (targets.others == 1).float()[:, None, None].expand(frames, 16, 1),
            torch.eye(16).expand(frames, 16, 16),
        ],
        dim=-1,
    )
    kinds = [torch.nn.functional.one_hot(aim) for aim in targets.cells.unbind(-1)]
    cells = torch.cat([*kinds, torch.eye(64, dtype=torch.int64).expand(frames, 64, 64)], dim=-1).float()
    cells = torch.nn.functional.pad(cells, (0, known.shape[-1] - cells.shape[-1]))
    heads = DenseHeads(cells.shape[-1], known.shape[-1], 4)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    losses = []
    right: dict[str, float] = {}
    for _ in range(80):
        loss, right = heads.loss(cells, cells, known, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert right == {"place": 1.0, "objects": 1.0, "digit": 1.0, "flash": 1.0, "other": 1.0}


def test_frames_of_other_videos_hold_nothing_and_plain_ones_are_not_asked() -> None:
    """A frame of one colour may be a flash, or a scene before anything has appeared: it cannot tell."""
    pixels, targets = dense_batch(np.random.default_rng(3), 40, 32, 4, some_other_videos())
    assert len(pixels) == len(targets.others) == 50 * FRAMES_PER_SCENE
    scenes, others = slice(0, 40 * FRAMES_PER_SCENE), slice(40 * FRAMES_PER_SCENE, None)
    assert (targets.others[scenes] == 0).all()
    assert set(targets.others[others].tolist()) <= {1, UNKNOWN}
    assert (targets.others[others] == 1).float().mean() > 0.7
    assert (targets.objects[others][..., 0] == 1).all()
    assert (targets.digits[others][..., 0] == 1).all()
    assert (targets.cells[others] == 0).all()
    assert (targets.flashes[others] == 0).all()
