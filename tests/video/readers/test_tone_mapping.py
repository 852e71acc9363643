"""HDR on an ordinary screen: levels from the standards, colours against FFmpeg's own conversion."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc
from numpy.typing import NDArray

from sfvqa.video import ReaderName

from ..here import read_here
from ..stored import BT2020, LIMITED, LOSSLESS_HEVC, UNSPECIFIED, Stored, samples, write_frames

PQ, HLG = 16, 18


def write_hdr(path: Path, transfer: int, codes: Sequence[tuple[int, int, int]], matrix: int = BT2020) -> Path:
    """Patches of 32 × 32 pixels with these 10-bit codes (Y′, C′b, C′r; limited range) in BT.2020."""
    frame = av.VideoFrame(32 * len(codes), 32, "yuv444p10le")
    for plane, values in zip(samples(frame), np.transpose(codes), strict=True):
        plane[:, : 32 * len(codes)] = np.repeat(values, 32)
    stored = Stored(
        "libx265",
        "yuv444p10le",
        options=LOSSLESS_HEVC,
        matrix=matrix,
        color_range=LIMITED,
        transfer=transfer,
        primaries=BT2020,
    )
    return write_frames(path, stored, [frame])


def patches(pixels: NDArray[np.uint8]) -> list[list[int]]:
    return [pixels[16, left].tolist() for left in range(16, pixels.shape[1], 32)]


def pq_code(nits: float) -> int:
    """10-bit, limited range (SMPTE ST 2084)."""
    m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
    power = (nits / 10000) ** m1
    return 64 + round(876 * float(((c1 + c2 * power) / (1 + c3 * power)) ** m2))


def test_pq_is_tone_mapped(tmp_path: Path) -> None:
    """Below the knee as bright as on an HDR screen (BT.1886 with white at 203 cd/m²), above it all in order."""
    nits = [0.0, 0.5, 5.0, 26.0, 80.0, 203.0, 400.0, 1000.0, 4000.0]
    path = write_hdr(tmp_path / "pq.mp4", PQ, [(pq_code(light), 512, 512) for light in nits])
    shown = patches(read_here(path, reader=ReaderName.PYAV).frames[0])
    assert all(max(colour) - min(colour) <= 1 for colour in shown), "grey stays grey"
    levels = [colour[1] for colour in shown]
    assert levels[:5] == pytest.approx([255 * (light / 203) ** (1 / 2.4) for light in nits[:5]], abs=2)
    assert levels[5] == pytest.approx(230, abs=2)
    assert levels == sorted(levels)
    assert levels[-3] < 255
    assert levels[-2:] == [255, 255]


def test_hdr_without_a_matrix_is_bt2020(tmp_path: Path) -> None:
    codes = [(400, 480, 600), (380, 560, 490)]
    shown = [
        read_here(write_hdr(tmp_path / f"{matrix}.mp4", PQ, codes, matrix), reader=ReaderName.PYAV).frames[0]
        for matrix in (BT2020, UNSPECIFIED)
    ]
    assert patches(shown[0]) == patches(shown[1])


def test_hlg_is_tone_mapped(tmp_path: Path) -> None:
    """Reference levels of ITU-R BT.2408, table 1: 18 % grey at 38 % (26 cd/m²), white at 75 % (203 cd/m²)."""
    path = write_hdr(tmp_path / "hlg.mp4", HLG, [(round(64 + 876 * code), 512, 512) for code in (0, 0.38, 0.75, 1)])
    levels = [colour[1] for colour in patches(read_here(path, reader=ReaderName.PYAV).frames[0])]
    assert levels == pytest.approx([0, 255 * (26 / 203) ** (1 / 2.4), 230, 255], abs=3)


@pytest.mark.slow
def test_hdr_colours_are_those_of_an_independent_conversion(tmp_path: Path) -> None:
    """FFmpeg's own colour management, which clips highlights, is right for what is darker.

    In HLG, whose curve weighs colours too; PQ's is that of its greys.
    """
    codes = [(400, 512, 512), (380, 535, 500), (330, 490, 540), (380, 500, 525), (350, 525, 530)]
    path = write_hdr(tmp_path / "colours.mp4", HLG, codes)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        independent = frame.reformat(
            format="rgb24", dst_color_trc=ColorTrc.BT709, dst_color_primaries=ColorPrimaries.BT709, threads=1
        )
    shown = patches(read_here(path, reader=ReaderName.PYAV).frames[0])
    expected = patches(np.asarray(independent.to_ndarray(), np.uint8))
    for colour, expected_colour in zip(shown, expected, strict=True):
        assert colour == pytest.approx(expected_colour, abs=4)
