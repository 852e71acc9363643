"""The base is asked for a direction where there is one to see."""

from dataclasses import replace

import numpy as np

from sfvqa.lab.comparison.items import TESTING, draw_item
from sfvqa.lab.comparison.lessons import motion_of
from sfvqa.lab.comparison.scenes import Mover, Span
from sfvqa.lab.motion_heads import DIRECTIONS, SHAPES, UNKNOWN
from sfvqa.lab.tiny.scenes import Colour, Direction, Shape


def test_the_second_teacher_asks_for_a_direction_only_once_it_shows() -> None:
    scene = draw_item(TESTING, 0, 0).scene
    rising = Mover(Shape.STAR, Colour.RED, 0.1, Direction.UP, (0.625, 0.875), (0.625, 0.125), 2.0, Span(4.0, 6.0))
    resting = Mover(Shape.HEART, Colour.BLUE, 0.1, Direction.LEFT, (0.375, 0.375), (0.125, 0.375), 0.0, Span(9.0, 9.9))
    still = replace(scene.camera, reach=(0.0, 0.0))
    moments = np.array([0, 38, 64, 100])  # the star is not there, rests, is half way, has arrived
    targets = motion_of(replace(scene, movers=(rising, resting), camera=still), moments, grid=4)
    star, heart = SHAPES.index(Shape.STAR), SHAPES.index(Shape.HEART)
    directions, ranks = targets.directions.unflatten(0, (4, 16)), targets.ranks.unflatten(0, (4, 16))
    assert (ranks[0, :, star] == UNKNOWN).all()
    assert ranks[1, 14, star] == 1
    assert ranks[0, 5, heart] == 0
    assert (directions[:2, :, star] == UNKNOWN).all()
    assert directions[3, 2, star] == DIRECTIONS.index(Direction.UP)
    assert directions[3, 14, star] == UNKNOWN  # it has left that token
    assert (directions[..., heart] == UNKNOWN).all()
