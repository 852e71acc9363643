"""Transparency that is meant is shown over black; a fourth byte that nobody set is none."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfvqa.video import ReaderName

from ..here import read_here
from ..stored import Stored, write_frames
from ..videos import number_in, numbered_picture

CLEAR, HALF, OPAQUE = 0, 128, 255


def with_alpha(alpha: int, pix_fmt: str) -> list[av.VideoFrame]:
    """Three numbered pictures, all of which are so transparent; hidden colours are there."""
    pictures = [np.dstack([numbered_picture(number), np.full((96, 144), alpha, np.uint8)]) for number in range(3)]
    return [av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format=pix_fmt) for picture in pictures]


UNDEFINED = {
    "raw.avi": ("rawvideo", "bgra"),
    "raw.mov": ("rawvideo", "argb"),
    "raw.nut": ("rawvideo", "rgba"),
    "raw abgr.nut": ("rawvideo", "abgr"),
    "targa.avi": ("targa", "bgra"),
    "targa.mov": ("targa", "bgra"),
    "huffyuv.avi": ("huffyuv", "bgra"),
    "ffvhuff.avi": ("ffvhuff", "bgra"),
}
DEFINED = {
    "animation.mov": ("qtrle", "argb"),
    "png.mov": ("png", "rgba"),
    "png.avi": ("png", "rgba"),
    "ffv1.mkv": ("ffv1", "bgra"),
    "utvideo.avi": ("utvideo", "gbrap"),
    "prores.mov": ("prores_ks", "yuva444p10le"),
    "vp9.webm": ("libvpx-vp9", "yuva420p"),
    "magicyuv.avi": ("magicyuv", "gbrap"),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_a_fourth_byte_that_is_0_everywhere_is_no_transparency(tmp_path: Path, reader: ReaderName, name: str) -> None:
    """What programs in a lab write as 32-bit AVI was black all over."""
    codec, pix_fmt = UNDEFINED[name]
    path = write_frames(tmp_path / name, Stored(codec, pix_fmt), with_alpha(CLEAR, pix_fmt))
    assert [number_in(frame) for frame in read_here(path, reader=reader).frames] == [0, 1, 2]


@pytest.mark.parametrize("name", UNDEFINED)
def test_one_that_is_set_is_transparency(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = UNDEFINED[name]
    for alpha in (HALF, OPAQUE):
        path = write_frames(tmp_path / name, Stored(codec, pix_fmt), with_alpha(alpha, pix_fmt))
        shown = read_here(path, reader=ReaderName.PYAV).frames[1]
        assert np.abs(shown - numbered_picture(1) * (alpha / 255)).max() <= 2


@pytest.mark.parametrize("name", DEFINED)
def test_where_transparency_is_defined_all_of_it_is_black(tmp_path: Path, name: str) -> None:
    codec, pix_fmt = DEFINED[name]
    path = write_frames(tmp_path / name, Stored(codec, pix_fmt), with_alpha(CLEAR, pix_fmt))
    assert read_here(path, reader=ReaderName.PYAV).frames.max() <= 2


def png(path: Path, picture: Image.Image) -> None:
    picture.save(path)


def bmp_with_32_bits(path: Path, picture: Image.Image) -> None:
    """As Windows writes it: no word of transparency, and a fourth byte of 0."""
    picture.save(path)
    data = path.read_bytes()
    assert int.from_bytes(data[28:30], "little") == 32
    assert int.from_bytes(data[30:34], "little") == 0


@pytest.mark.parametrize(
    ("name", "write", "is_shown"), [("a.png", png, False), ("a.webp", png, False), ("a.bmp", bmp_with_32_bits, True)]
)
def test_stills(tmp_path: Path, name: str, write: Callable[[Path, Image.Image], None], is_shown: bool) -> None:
    pixels = np.dstack([numbered_picture(5), np.zeros((96, 144), np.uint8)])
    write(tmp_path / name, Image.fromarray(pixels, "RGBA"))
    frame = read_here(tmp_path / name).frames[0]
    assert number_in(frame) == (5 if is_shown else None)
    assert bool(frame.any()) == is_shown
