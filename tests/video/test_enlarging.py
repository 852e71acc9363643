"""Enlarging gives Pillow's own pixels, or says that it cannot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfvqa.video.clip import Box, Pixels
from sfvqa.video.enlarging import enlarge


def pillow(pixels: Pixels, width: int, height: int, box: Box | None) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box))


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("size", "new_size", "box"),
    [
        ((640, 360), (576, 576), (140.0, 0.0, 500.0, 360.0)),  # the centre crop of 360p
        ((640, 360), (1024, 576), None),
        ((360, 640), (576, 1024), None),
        ((480, 360), (576, 576), (60.0, 0.0, 420.0, 360.0)),
        ((384, 288), (768, 576), None),
        ((768, 432), (1024, 576), None),
        ((144, 144), (576, 576), None),
    ],
)
def test_every_pixel_is_pillows(size: tuple[int, int], new_size: tuple[int, int], box: Box | None) -> None:
    """In noise some weighted sums end in exactly one half, which OpenCV alone would round to even."""
    pixels = noise(*size)
    enlarged = enlarge(pixels, *new_size, box)
    assert enlarged is not None
    assert np.array_equal(enlarged, pillow(pixels, *new_size, box))


@given(st.integers(4, 48), st.integers(4, 48), st.integers(1, 96), st.integers(1, 96), st.integers(0, 5))
def test_it_is_exact_or_nothing(width: int, height: int, new_width: int, new_height: int, seed: int) -> None:
    pixels = noise(width, height, seed)
    enlarged = enlarge(pixels, new_width, new_height)
    assert enlarged is None or np.array_equal(enlarged, pillow(pixels, new_width, new_height, None))


@given(st.sampled_from([(5, 8), (3, 4), (1, 2), (1, 4), (7, 8)]), st.integers(1, 9), st.integers(0, 9))
def test_it_is_exact_inside_a_box(ratio: tuple[int, int], times: int, left: int) -> None:
    side, new_side = ratio[0] * times, ratio[1] * times
    pixels, box = noise(side + 12, side), (float(left), 0.0, float(left + side), float(side))
    enlarged = enlarge(pixels, new_side, new_side, box)
    assert enlarged is not None
    assert np.array_equal(enlarged, pillow(pixels, new_side, new_side, box))


@pytest.mark.parametrize(
    ("size", "new_size"), [((1920, 1080), (1024, 576)), ((640, 480), (768, 576)), ((8, 8), (8, 8))]
)
def test_what_cannot_be_exact_is_left_to_pillow(size: tuple[int, int], new_size: tuple[int, int]) -> None:
    assert enlarge(noise(*size), *new_size) is None
