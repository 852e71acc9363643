"""VideoInfo and Clip refuse what cannot be, and say which shape they got."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sfvqa.video import Clip, VideoInfo

INFO = VideoInfo(Path("a.mp4"), 10, 25.0, 0.4, 8, 6, "h264", 0)


def make_clip(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], indices: tuple[int, ...]) -> Clip:
    return Clip(tuple(index / 25 for index in indices), indices, INFO, "uniform", "pyav", frames=frames)


def test_a_sound_clip_is_taken() -> None:
    assert make_clip(np.zeros((2, 6, 8, 3), np.uint8), (0, 4)).timestamps_seconds == (0.0, 0.16)


@pytest.mark.parametrize("shape", [(6, 8, 3), (0, 6, 8, 3), (2, 3, 6, 8), (3, 6, 8, 3)])
def test_the_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=str(list(shape)).replace("[", r"\[").replace("]", r"\]")):
        make_clip(np.zeros(shape, np.uint8), (0, 4))


def test_floats_are_refused() -> None:
    with pytest.raises(ValueError, match="float32"):
        make_clip(np.zeros((1, 6, 8, 3), np.float32), (0,))


@pytest.mark.parametrize("indices", [(4, 0), (4, 4)])
def test_indices_are_sorted_and_unique(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="sorted and unique"):
        make_clip(np.zeros((2, 6, 8, 3), np.uint8), indices)


def test_a_video_has_frames_pixels_and_a_right_angle() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        replace(INFO, num_frames=0)
    with pytest.raises(ValueError, match="not negative"):
        replace(INFO, fps=-1.0)
    with pytest.raises(ValueError, match="45"):
        replace(INFO, rotation=45)
