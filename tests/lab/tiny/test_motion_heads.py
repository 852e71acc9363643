"""The motion heads ask only what a fast token can know, and what they ask can be learned."""

import torch

from sfvqa.lab.motion_heads import DIRECTIONS, NUM_ASKED, SHAPES, UNKNOWN, MotionHeads
from sfvqa.lab.tiny.language_stage import motion_of
from sfvqa.lab.tiny.scenes import Colour, Direction, Scene, SceneObject, Shape

DARK = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
# Along the second row of tokens from the first to the last one, eight frames a window, two windows on each half.
CIRCLE = SceneObject(Shape.CIRCLE, Colour.RED, 0.1, Direction.RIGHT, (0.125, 0.375), (0.875, 0.375))
STAR = SceneObject(Shape.STAR, Colour.BLUE, 0.1, Direction.STILL, (0.875, 0.875), (0.875, 0.875), 16.0)
SCENE = Scene((CIRCLE, STAR), DARK)


def test_direction_is_asked_from_the_second_window_on_and_rank_wherever_the_object_is() -> None:
    targets = motion_of(SCENE, num_windows=4, grid=4)
    assert targets.directions.shape == targets.ranks.shape == (64, len(SHAPES))
    circle, star = SHAPES.index(Shape.CIRCLE), SHAPES.index(Shape.STAR)
    directions = targets.directions.unflatten(0, (4, 16))
    ranks = targets.ranks.unflatten(0, (4, 16))
    assert (directions[0] == UNKNOWN).all()
    right = DIRECTIONS.index(Direction.RIGHT)
    assert set(directions[1:, :, circle].unique().tolist()) == {UNKNOWN, right}
    assert ranks[0, 4, circle] == 0
    assert ranks[3, 7, circle] == 0
    assert ranks[3, 4, circle] == UNKNOWN  # it has left that token long ago
    assert (ranks[:2, :, star] == UNKNOWN).all()
    assert ranks[2, 15, star] == 1
    assert directions[2, 15, star] == UNKNOWN
    assert directions[3, 15, star] == DIRECTIONS.index(Direction.STILL)
    untold = [shape for shape in range(len(SHAPES)) if shape not in (circle, star)]
    assert (ranks[..., untold] == UNKNOWN).all()


def test_loss_falls_where_the_hidden_states_hold_the_answer() -> None:
    torch.manual_seed(0)
    targets = [motion_of(SCENE, 4, 4)]
    heads = MotionHeads(64, 4, 4)
    hidden = [torch.eye(64)[None] for _ in range(NUM_ASKED)]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = heads.loss(hidden, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
