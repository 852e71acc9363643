"""Interlaced frames: two moments in one picture become one, and the frame stays where it was."""

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from sfvqa.video import ReaderName, SamplingOptions

from ..here import read_here
from ..stored import Stored, write_frames
from ..videos import number_in, numbered_picture

FIRST = 0b010101010101  # many edges between blocks side by side

INTERLACED = {
    "h264 top first.mp4": Stored("libx264", "yuv420p", options={"x264-params": "tff=1:scenecut=0"}),
    "h264 bottom first.mp4": Stored("libx264", "yuv420p", options={"x264-params": "bff=1:scenecut=0"}),
    "h264 4:2:2 10 bit.mp4": Stored("libx264", "yuv422p10le", options={"x264-params": "tff=1:scenecut=0"}),
    "mpeg2.ts": Stored("mpeg2video", "yuv420p", options={"flags": "+ildct+ilme", "b": "8M"}),
    "prores.mov": Stored("prores_ks", "yuv422p10le", options={"flags": "+ildct"}),
}


def combs(pixels: NDArray[np.uint8]) -> float:
    """How far lines lie from the mean of their neighbours, in levels."""
    lines = pixels.astype(float).mean(axis=2)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


def moving(number: int, shift: int) -> NDArray[np.uint8]:
    """The blocks of a numbered picture without the noise, moved to the right."""
    smooth = np.where(numbered_picture(number) > 125, 200, 50).astype(np.uint8)
    return np.roll(smooth, shift, axis=1)


@pytest.mark.parametrize("name", INTERLACED)
def test_interlaced_frames_lose_their_combs_and_keep_their_place(tmp_path: Path, name: str) -> None:
    stored = INTERLACED[name]
    frames = []
    numbers = [FIRST + place for place in range(20)]
    for number in numbers:
        picture = moving(number, 0)
        picture[1::2] = moving(number, 5)[1::2]
        frames.append(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=stored.pix_fmt))
    path = write_frames(tmp_path / name, stored, frames)
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0))
    assert raw.interlaced_frame
    assert combs(np.asarray(raw.to_ndarray(format="rgb24"), np.uint8)) > 12
    clip = read_here(path, reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == numbers
    assert clip.timestamps_seconds == pytest.approx([place / 25 for place in range(20)])
    assert max(combs(frame) for frame in clip.frames) < 6
    some = read_here(path, SamplingOptions(num_frames=4), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in some.frames] == [FIRST + index for index in some.indices]


def test_whole_pictures_flagged_as_interlaced_stay_sharp(tmp_path: Path) -> None:
    picture = av.VideoFrame.from_ndarray(moving(FIRST, 0), format="rgb24").reformat(format="yuv420p")
    path = write_frames(tmp_path / "flagged.mp4", INTERLACED["h264 top first.mp4"], [picture])
    with av.open(str(path)) as container:
        raw = next(container.decode(video=0))
    assert raw.interlaced_frame
    shown = read_here(path, reader=ReaderName.PYAV).frames[0]
    assert np.abs(shown.astype(int) - raw.to_ndarray(format="rgb24")).mean() < 0.5
