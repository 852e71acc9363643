"""The tower is asked for what a frame shows, where it shows it."""

from dataclasses import replace

import numpy as np
import pytest

from sfvqa.lab.comparison.items import TESTING, draw_item
from sfvqa.lab.comparison.scenes import PLATE_COLOURS, Mover, Sign, Span
from sfvqa.lab.comparison.seeing import GLYPHS, sights_of
from sfvqa.lab.tiny.scenes import Colour, Direction, Shape


def test_tokens_are_asked_for_what_the_frame_shows() -> None:
    item = next(item for item in (draw_item(TESTING, 0, n) for n in range(50)) if item.scene.bursts_of(Sign.LETTER))
    (burst,) = item.scene.bursts_of(Sign.LETTER)
    plate = burst.plates[1]
    middle, elsewhere = (plate.span.start + plate.span.end) / 2, (burst.span.end + 5.0) % 10
    aims = sights_of([item.scene], np.array([[middle, elsewhere]]), grid=4)
    letter, colour = GLYPHS.index(plate.text) + 1, PLATE_COLOURS.index(plate.colour) + 1
    for name, kind in (("glyph", letter), ("plate", colour)):
        shares = aims.tokens[name]
        assert shares.sum(-1) == pytest.approx(1.0)
        assert float(shares[0, :, kind].sum()) == pytest.approx(1.0)
        assert float(shares[1, :, kind].sum()) == 0.0
        cell = int(shares[0, :, kind].argmax())
        assert abs((cell % 4 + 0.5) / 4 - burst.centre[0]) < 0.2
        assert abs((cell // 4 + 0.5) / 4 - burst.centre[1]) < 0.2
        covered = np.flatnonzero(aims.cells[name][0].numpy() == kind)
        assert len(covered) > 0
        assert np.abs((covered % 8 + 0.5) / 8 - burst.centre[0]).max() < 1.5 * burst.radius
        assert not aims.cells[name][1].any()


def test_every_frame_says_at_which_end_a_shape_is_with_the_camera_counted() -> None:
    scene = draw_item(TESTING, 0, 0).scene
    rising = Mover(Shape.STAR, Colour.RED, 0.1, Direction.UP, (0.5, 0.8), (0.5, 0.2), 2.0, Span(4.0, 6.0))
    still = replace(scene.camera, reach=(0.0, 0.0))
    times = np.array([[1.0, 3.0, 5.0, 8.0]])
    aims = sights_of([replace(scene, movers=(rising,), camera=still)], times, grid=4)
    assert aims.frames["star_row"].tolist() == [0, 3, 2, 1]
    assert aims.frames["star_column"].tolist() == [0, 2, 2, 2]
    assert not aims.frames["circle_row"].any()
    swaying = replace(still, reach=(0.1, 0.0), period=4.0, phase=0.0)  # a quarter of it shifts by all its reach
    aims = sights_of([replace(scene, movers=(rising,), camera=swaying)], times, grid=4)
    assert aims.frames["star_column"].tolist() == [0, 1, 3, 2]
