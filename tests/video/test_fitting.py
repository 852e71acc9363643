"""The model's square is the reference's to the bit; the other ways keep all of the picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import fitting
from sfvqa.video.clip import Box, Pixels
from sfvqa.video.fitting import CropMode, FitSquare, FitWithin, resize_to, size_for_shortest_edge


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
    np.testing.assert_array_equal(resize_to(pixels, *size), expected)


def test_a_sliver_is_refused_before_it_fills_the_memory() -> None:
    """8192 × 16 pixels would become 294912 × 576, half a gigabyte a frame."""
    with pytest.raises(UnreadableVideoError, match="8192 × 16"):
        FitSquare(576)(np.zeros((16, 8192, 3), np.uint8))


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(short=st.integers(8, 150), ratio=st.floats(1, 15), size=st.sampled_from([48, 64, 96]), portrait=st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_centre_is_the_crop_of_the_whole_resized_picture(
    short: int, ratio: float, size: int, portrait: bool
) -> None:
    """What lies outside the crop is not computed where that can be avoided; no pixel inside may change by that."""
    width, height = (short, int(short * ratio)) if portrait else (int(short * ratio), short)
    pixels = noise(width, height)
    new_width, new_height = size_for_shortest_edge(width, height, size)
    left, top = (new_width - size) // 2, (new_height - size) // 2
    expected = resize_to(pixels, new_width, new_height)[top : top + size, left : left + size]
    np.testing.assert_array_equal(FitSquare(size)(pixels), expected)


def test_a_wide_video_frame_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(pixels: Pixels, width: int, height: int, box: Box) -> Pixels:
        return resize_to(pixels, width, height, box)

    monkeypatch.setattr(fitting, "resize_to", resize)  # the long way has no box
    assert FitSquare(576)(noise(1920, 1080)).shape == (576, 576, 3)


def test_padding_keeps_the_whole_picture_between_black_bars() -> None:
    square = FitSquare(64, CropMode.PAD)(np.full((90, 160, 3), 255, np.uint8))
    assert square.shape == (64, 64, 3)
    lit = square[..., 0].any(axis=1)
    assert (int(lit.argmax()), int(lit.sum())) == (14, 36)


def test_squashing_keeps_the_whole_picture() -> None:
    pixels = noise(160, 90)
    np.testing.assert_array_equal(FitSquare(64, CropMode.SQUASH)(pixels), resize_to(pixels, 64, 64))


@pytest.mark.parametrize("crop", CropMode)
def test_a_square_of_the_right_size_is_left_alone(crop: CropMode) -> None:
    pixels = noise(64, 64)
    np.testing.assert_array_equal(FitSquare(64, crop)(pixels), pixels)


@pytest.mark.parametrize(
    ("crop", "width", "height", "lost"),
    [
        (CropMode.CENTER, 1920, 1080, 0.4375),
        (CropMode.CENTER, 1080, 1920, 0.4375),
        (CropMode.CENTER, 500, 500, 0),
        (CropMode.PAD, 1920, 1080, 0),
        (CropMode.SQUASH, 1920, 1080, 0),
    ],
)
def test_what_is_lost_is_said(crop: CropMode, width: int, height: int, lost: float) -> None:
    assert crop.lost_share(width, height) == pytest.approx(lost)


@pytest.mark.parametrize(
    ("width", "height", "shape"), [(1920, 1080, (90, 160, 3)), (1000, 10, (2, 160, 3)), (9, 900, (120, 1, 3))]
)
def test_a_picture_fits_within_a_box(width: int, height: int, shape: tuple[int, int, int]) -> None:
    assert FitWithin(160, 120)(noise(width, height)).shape == shape
