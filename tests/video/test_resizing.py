"""Resizing as the reference does it."""

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.resizing import resize_shortest_edge, size_for_shortest_edge


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (1920, 1080, (1024, 576)),
        (1080, 1920, (576, 1024)),
        (192, 108, (1024, 576)),
        (71, 97, (576, 786)),  # int(576 · 97 / 71) = int(786.93): cut, not rounded
        (576, 576, (576, 576)),
    ],
)
def test_the_shortest_edge_is_met_and_the_long_one_cut_to_whole_pixels(
    width: int, height: int, size: tuple[int, int]
) -> None:
    assert size_for_shortest_edge(width, height, 576) == size


@pytest.mark.parametrize(("height", "width"), [(108, 192), (97, 71), (33, 50)])
def test_pixels_are_pillows_bicubic(height: int, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    short, long = min(height, width), int(48 * max(height, width) / min(height, width))
    size = (48, long) if width == short else (long, 48)
    expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resize_shortest_edge(pixels, 48), expected)


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    """8192 × 16 pixels would become 294912 × 576, half a gigabyte a frame."""
    with pytest.raises(UnreadableVideoError, match="8192 × 16"):
        resize_shortest_edge(np.zeros((16, 8192, 3), np.uint8), 576)
