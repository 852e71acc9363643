"""The comparison of readers compares the same frames, tells a wrong one, and its table says what was measured."""

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sfvqa.lab.measurements.numbered_videos import NumberedVideo, find_or_write, number_in
from sfvqa.lab.measurements.readers import OTHER_READERS, READER_NAMES, VIDEOS, Measured, as_table, read_with

SMALL = NumberedVideo("small.mp4", "2 s, small", "libx264", 320, 180, 2, 25, grain=2.0)
INSTALLED = ["ours", "ours-2", *(name for name, module in OTHER_READERS.items() if importlib.util.find_spec(module))]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_or_write(SMALL, tmp_path_factory.mktemp("numbered"))


@pytest.mark.parametrize("reader", INSTALLED)
def test_every_reader_gives_the_frames_asked_for_at_the_models_size(path: Path, reader: str) -> None:
    wanted = [0, 7, 24, 25, 49]
    program = f"""
from pathlib import Path
from sfvqa.lab.measurements.numbered_videos import number_in
from sfvqa.lab.measurements.readers import read_with
frames = read_with({reader!r})(Path({str(path)!r}), {wanted})
print([number_in(frame) for frame in frames], [min(frame.shape[:2]) for frame in frames])
"""
    # A process of its own: the libraries bring FFmpegs of their own, which talk on the terminal from then on.
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == f"{wanted} {[576] * 5}"


def test_a_picture_patched_up_from_two_has_no_number(path: Path) -> None:
    one, other = read_with("ours")(path, [5, 42])
    half = one.copy()
    half[:288] = other[:288]
    assert number_in(one) == 5
    assert number_in(half) is None
    assert number_in(np.zeros_like(one)) is None


def test_times_are_even_or_uneven_as_the_recipe_says() -> None:
    even, uneven = (list(video.ticks()) for video in (SMALL, next(v for v in VIDEOS if not v.has_even_steps)))
    assert {later - earlier for earlier, later in pairwise(even)} == {40}
    assert {later - earlier for earlier, later in pairwise(uneven)} == {20, 40, 100}


def test_the_table_names_ratios_failures_and_wrong_frames() -> None:
    video = VIDEOS[0]
    table = as_table(
        [
            Measured(video.name, "ours", 2.0, 3.0, 64),
            Measured(video.name, "opencv-grab", 3.0, 3.5, 64),
            Measured(video.name, "opencv-seek", 5.0, 6.0, 7),
            Measured(video.name, "decord", None, None, None, "boom"),
        ]
    )
    assert table.splitlines()[0].endswith(f"| {READER_NAMES['opencv-seek']} | {READER_NAMES['decord']} |")
    row = f"| {video.description} | 2.00, wall 3.00 | 3.00 (1.50) | 5.00 (2.50), **7 right** | fails |"
    assert table.splitlines()[2] == row
