"""Dense targets say what is where, and reading them back off perfect logits counts as right."""

import numpy as np
import torch

from sfvqa.training.scenes import Colour, DigitCard, Direction, Flash, Scene, SceneObject, Shape
from sfvqa.training.vision_stage import COLOURS, SHAPES, DenseHeads, dense_batch, dense_targets

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


def test_loss_falls_and_perfect_reading_is_right() -> None:
    """A token that carries its own target as features can be read by linear heads, so the loss must go down."""
    torch.manual_seed(0)
    _, targets = dense_batch(np.random.default_rng(0), 2, 64, 4)
    frames = len(targets.flashes)
    known = torch.cat(
        [
            targets.objects.flatten(2),
            targets.digits,
            torch.nn.functional.one_hot(targets.flashes, 6).float()[:, None].expand(frames, 16, 6),
            torch.eye(16).expand(frames, 16, 16),
        ],
        dim=-1,
    )
    features = torch.zeros(frames, 64, 8)
    heads = DenseHeads(8, known.shape[-1], 4)
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    losses = []
    right: dict[str, float] = {}
    for _ in range(80):
        loss, right = heads.loss(features, known, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert right == {"place": 1.0, "objects": 1.0, "digit": 1.0, "flash": 1.0}
