"""Which frames are chosen: arithmetic, no video."""

import doctest
import math
from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfvqa.errors import RangeOutsideVideoError
from sfvqa.video import (
    SamplingOptions,
    SamplingStrategy,
    Timeline,
    choose_frames,
    format_time,
    parse_time,
    sampling,
    scenes,
)
from sfvqa.video.sampling import TIME_TOLERANCE_SECONDS, share_out

FPS, KEYFRAMES = SamplingStrategy.FPS, SamplingStrategy.KEYFRAMES
SCENE, TIMESTAMPS = SamplingStrategy.SCENE, SamplingStrategy.TIMESTAMPS

increasing_times = st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=300, unique=True).map(
    lambda times: sorted({time - min(times) for time in times})
)
rates = st.sampled_from([0.1, 0.4, 1.0, 7.3, 25.0, 30000 / 1001, 240.0, 1000.0])
constant_times = st.builds(lambda fps, count: [place / fps for place in range(count)], rates, st.integers(1, 300))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Constant and variable rates, with and without key frames, cuts and a known rate."""
    times = draw(increasing_times | constant_times)
    places = st.sets(st.integers(0, len(times) - 1), max_size=40).map(sorted)
    return Timeline(times, draw(places), draw(st.sampled_from([0.0, 24.0])), draw(places))


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, float]:
    start = draw(st.none() | st.floats(0, 6000))
    length = draw(st.none() | st.floats(0.001, 6000))
    chosen = {} if start is None else {"start_seconds": start}
    return chosen if length is None else {**chosen, "end_seconds": (start or 0.0) + length}


def on_screen(times: Sequence[float], start: float, end: float) -> list[int]:
    """Going through the frames one by one; a frame that is nearest to a border, up to half a millisecond late, is."""
    start, end = as_printed(times, start), as_printed(times, end)
    following = [*times[1:], math.inf]
    return [index for index, time in enumerate(times) if time <= end and following[index] > start]


def as_printed(times: Sequence[float], seconds: float) -> float:
    nearest = min(times, key=lambda time: abs(time - seconds))
    return nearest if seconds < nearest <= seconds + TIME_TOLERANCE_SECONDS else seconds


def at_constant_rate(count: int, fps: float = 25.0) -> Timeline:
    return Timeline([place / fps for place in range(count)], fps=fps)


@given(st.data(), timelines(), ranges(), st.integers(1, 80), st.sampled_from(SamplingStrategy))
@settings(deadline=None)
def test_every_strategy_chooses_sorted_frames_of_the_range_once(
    data: st.DataObject, timeline: Timeline, within: dict[str, float], num_frames: int, strategy: SamplingStrategy
) -> None:
    times = timeline.timestamps_seconds
    start, end = within.get("start_seconds", 0.0), within.get("end_seconds", timeline.end_seconds)
    fps = data.draw(st.floats(0.001, 1e6)) if strategy is FPS else None
    wanted = None
    if strategy is TIMESTAMPS:
        wanted = tuple(data.draw(st.lists(st.floats(start, max(start, end)), min_size=1, max_size=20)))
    options = SamplingOptions(num_frames, strategy, fps, wanted, **within)
    inside = on_screen(times, start, end)
    last_wanted = max(wanted) if wanted else start
    if last_wanted > timeline.end_seconds + 0.001:
        with pytest.raises(RangeOutsideVideoError):
            choose_frames(timeline, options)
        return
    if last_wanted > timeline.end_seconds:
        return  # within the tolerance: either is right
    choice = choose_frames(timeline, options)
    assert choice.indices == tuple(sorted(set(choice.indices)))
    assert all(type(index) is int for index in choice.indices)
    if wanted:
        assert 1 <= len(choice.indices) <= len(wanted)
        assert 0 <= choice.indices[0] <= choice.indices[-1] < len(times)
    else:
        assert 1 <= len(choice.indices) <= num_frames
        assert set(choice.indices) <= set(inside)
        if strategy in (SamplingStrategy.UNIFORM, SCENE, SamplingStrategy.REFERENCE_DEMO):
            assert len(choice.indices) == min(num_frames, len(inside))
    assert all(note[0].isupper() and note.endswith(".") for note in choice.notes)


@given(increasing_times, st.integers(1, 400))
def test_uniform_covers_both_ends_and_is_even(times: list[float], num_frames: int) -> None:
    indices = choose_frames(Timeline(times), SamplingOptions(num_frames)).indices
    assert len(indices) == min(num_frames, len(times))
    if num_frames > 1:
        assert (indices[0], indices[-1]) == (0, len(times) - 1)
    steps = {later - earlier for earlier, later in pairwise(indices)}
    assert max(steps, default=0) - min(steps, default=0) <= 1


def test_one_frame_is_the_middle_one() -> None:
    assert choose_frames(Timeline([0.0, 1.0, 2.0]), SamplingOptions(1)).indices == (1,)


def test_a_range_half_beyond_the_end_is_clipped() -> None:
    timeline = Timeline([0.0, 1.0, 2.0, 3.0])
    assert choose_frames(timeline, SamplingOptions(start_seconds=2.0, end_seconds=99.0)).indices == (2, 3)
    assert choose_frames(timeline, SamplingOptions(end_seconds=1.5)).indices == (0, 1)


SCREEN = Timeline([0.0, 1.0, 40.0, 60.0], key_frames=[0, 1], duration_seconds=60.04)


@pytest.mark.parametrize("strategy", SamplingStrategy)
def test_a_still_screen_shows_its_last_frame_in_any_range(strategy: SamplingStrategy) -> None:
    """No frame begins from 0:10 to 0:30 of a screen recording: that was an error, and the screen is full of text."""
    fps = 2.0 if strategy is FPS else None

    def chosen(start: float, end: float | None = None) -> tuple[int, ...]:
        wanted = (start,) if strategy is TIMESTAMPS else None
        return choose_frames(SCREEN, SamplingOptions(8, strategy, fps, wanted, start, end)).indices

    assert chosen(10.0, 30.0) == (1,)
    assert chosen(60.02) == (3,)
    if strategy not in (KEYFRAMES, TIMESTAMPS):
        assert chosen(10.0, 50.0) == (1, 2)
    with pytest.raises(RangeOutsideVideoError, match="beyond"):
        chosen(60.1)


def test_a_range_may_begin_and_end_at_times_as_they_are_printed() -> None:
    timeline = at_constant_rate(30, fps=30.0)
    options = SamplingOptions(start_seconds=0.033, end_seconds=0.133)  # 1/30 = 0.03333…, 4/30 = 0.13333…
    assert choose_frames(timeline, options).indices == (1, 2, 3, 4)
    assert choose_frames(at_constant_rate(9, fps=2000.0), SamplingOptions(start_seconds=0.0)).indices[0] == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (SamplingOptions(start_seconds=75.0), "from 1:15 lies beyond the last frame of the video, at 0:03"),
        (SamplingOptions(1, KEYFRAMES, start_seconds=4.5), "from 0:04.5 lies beyond the last frame"),
    ],
)
def test_a_range_beyond_the_end_is_an_error_that_says_where_the_video_ends(
    options: SamplingOptions, sentence: str
) -> None:
    with pytest.raises(RangeOutsideVideoError, match=sentence) as raised:
        choose_frames(Timeline([0.0, 1.0, 2.0, 3.0]), options)
    assert raised.value.remedy
    assert raised.value.exit_code == 3


@given(increasing_times | constant_times, st.floats(0, 1), st.floats(0.5, 1000))
@settings(max_examples=50, deadline=None)
def test_fps_takes_the_frame_nearest_to_every_tick(times: list[float], share: float, num_ticks: float) -> None:
    """Compared with going through the ticks one by one; where a tick is about as near to two frames either will do."""
    start = share * times[-1]
    inside = np.maximum([times[index] for index in on_screen(times, start, math.inf)], start)
    fps = min(max(num_ticks / max(times[-1] - start, 0.001), 0.001), 1e6)
    ticks = start + np.arange(int((inside[-1] - start) * fps + 1e-6) + 1) / fps
    choice = choose_frames(Timeline(times), SamplingOptions(10**6, FPS, fps, start_seconds=start))
    distances = np.abs(inside[:, None] - ticks)
    is_nearest = distances <= distances.min(axis=0) + 1e-6
    chosen = np.array(choice.indices) - (len(times) - len(inside))
    assert is_nearest[chosen].any(axis=0).all()  # every tick has one
    assert is_nearest[chosen].any(axis=1).all()  # and none is there without a tick
    assert choice.notes == ()


@pytest.mark.parametrize(
    ("timeline", "fps", "indices"),
    [
        (at_constant_rate(100), 5.0, tuple(range(0, 100, 5))),
        (at_constant_rate(10), 25.0, tuple(range(10))),
        (at_constant_rate(10), 1000.0, tuple(range(10))),
        (at_constant_rate(4, fps=0.2), 1.0, (0, 1, 2, 3)),
        (at_constant_rate(480, fps=480.0), 4.0, (0, 120, 240, 360)),
        (at_constant_rate(10, fps=1.0), 0.25, (0, 4, 8)),
        # A still stretch from 0.2 s to 5 s: its ticks fall on its two ends.
        (Timeline([0.0, 0.1, 0.2, 5.0, 5.1, 5.2]), 1.0, (0, 2, 3)),
    ],
)
def test_fps_by_hand(timeline: Timeline, fps: float, indices: tuple[int, ...]) -> None:
    assert choose_frames(timeline, SamplingOptions(64, FPS, fps)).indices == indices


def test_fps_starts_its_ticks_at_the_start_of_the_range() -> None:
    options = SamplingOptions(64, FPS, 1.0, start_seconds=0.4, end_seconds=3.0)
    assert choose_frames(at_constant_rate(100, fps=10.0), options).indices == (4, 14, 24)


def test_more_ticks_than_frames_are_spread_evenly_and_the_rate_is_told() -> None:
    choice = choose_frames(at_constant_rate(1500), SamplingOptions(6, FPS, 4.0))
    assert choice.indices == (0, 300, 600, 894, 1194, 1494)
    assert choice.notes == (
        "At 4 frames a second there would be 240 frames, more than the 6 allowed: they are taken at about 0.1 frames a "
        "second instead.",
    )


def test_still_pictures_are_not_asked_for_more_frames_than_they_have() -> None:
    """An hour of ten slides at 1 fps has 3,600 ticks but only ten frames: no cap is reached."""
    slides = Timeline([place * 360.0 for place in range(10)])
    choice = choose_frames(slides, SamplingOptions(64, FPS, 1.0))
    assert (choice.indices, choice.notes) == (tuple(range(10)), ())


def test_key_frames_are_taken_or_thinned_out_with_a_note() -> None:
    timeline = Timeline(at_constant_rate(100).timestamps_seconds, key_frames=range(0, 100, 10))
    assert choose_frames(timeline, SamplingOptions(64, KEYFRAMES)).indices == tuple(range(0, 100, 10))
    fewer = choose_frames(timeline, SamplingOptions(4, KEYFRAMES))
    assert fewer.indices == (0, 30, 60, 90)
    assert fewer.notes == ("There are 10 key frames: 4 of them are taken, evenly spread.",)
    within = SamplingOptions(64, KEYFRAMES, start_seconds=1.0, end_seconds=2.0)
    assert choose_frames(timeline, within).indices == (30, 40, 50)


@pytest.mark.parametrize(("keys", "why"), [((0, 50), "No key frame lies in the range"), ((), "are not known")])
def test_without_key_frames_the_range_is_seen_evenly_and_that_is_told(keys: tuple[int, ...], why: str) -> None:
    timeline = Timeline(at_constant_rate(100).timestamps_seconds, key_frames=keys)
    choice = choose_frames(timeline, SamplingOptions(3, KEYFRAMES, start_seconds=0.4, end_seconds=1.0))
    assert choice.indices == (10, 18, 25)
    assert why in choice.notes[0]


def test_scenes_share_the_frames_by_length_and_none_goes_without() -> None:
    timeline = Timeline(at_constant_rate(100).timestamps_seconds, cuts=(10, 70, 72))
    choice = choose_frames(timeline, SamplingOptions(10, SCENE))
    assert choice.indices == (5, 16, 28, 40, 52, 64, 71, 76, 86, 95)
    assert choice.notes == ()
    one_each = choose_frames(timeline, SamplingOptions(4, SCENE))
    assert one_each.indices == (5, 40, 71, 86)


def test_with_more_scenes_than_frames_the_longest_are_seen_and_that_is_told() -> None:
    timeline = Timeline(at_constant_rate(100).timestamps_seconds, cuts=(10, 70, 72))
    choice = choose_frames(timeline, SamplingOptions(2, SCENE))
    assert choice.indices == (40, 86)
    assert choice.notes == (
        "There are 4 scenes, more than the 2 frames asked for: the longest are seen, 2 are left out.",
    )


def test_scenes_outside_the_range_get_nothing() -> None:
    timeline = Timeline(at_constant_rate(100).timestamps_seconds, cuts=(10, 50, 75))
    choice = choose_frames(timeline, SamplingOptions(2, SCENE, start_seconds=1.0, end_seconds=2.96))
    assert choice.indices == (37, 62)  # the middles of 25–49 and 50–74


def test_a_video_without_cuts_is_one_scene() -> None:
    choice = choose_frames(at_constant_rate(100), SamplingOptions(2, SCENE))
    assert choice.indices == (25, 75)
    assert choice.notes == ("No cut was found: the frames are spread evenly over one scene.",)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.data())
def test_shares_are_whole_fair_and_never_too_large(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(len(sizes), sum(sizes)))
    shares = share_out(sizes, total)
    assert sum(shares) == total
    rest, left = total - len(sizes), sum(sizes) - len(sizes)
    for size, share in zip(sizes, shares, strict=True):
        assert 1 <= share <= size
        assert abs(share - 1 - (rest * (size - 1) / left if left else 0)) < 1


@given(timelines(), st.floats(0, 1))
def test_a_time_shows_the_frame_that_is_on_screen(timeline: Timeline, share: float) -> None:
    times = timeline.timestamps_seconds
    seconds = share * timeline.end_seconds
    (index,) = choose_frames(timeline, SamplingOptions(1, TIMESTAMPS, timestamps_seconds=(seconds,))).indices
    assert times[index] <= seconds + 0.00051
    assert index + 1 == len(times) or times[index + 1] > seconds


def test_times_by_hand() -> None:
    timeline = Timeline([0.0, 0.1, 0.2, 5.0, 5.1])  # variable rate: still from 0.2 s to 5 s

    def at(*seconds: float) -> tuple[int, ...]:
        return choose_frames(timeline, SamplingOptions(1, TIMESTAMPS, timestamps_seconds=seconds)).indices

    assert at(4.99) == (2,)
    assert at(5.0) == (3,)
    assert at(5.2, 0.05) == (0, 4)
    assert at(0.0996) == (1,)
    assert at(0.099) == (0,)


def test_a_printed_time_names_its_frame() -> None:
    """Times are printed in milliseconds: 7/30 s as 0:00.233, which is before the frame."""
    timeline = at_constant_rate(600, fps=30.0)
    printed = tuple(parse_time(format_time(seconds)) for seconds in timeline.timestamps_seconds)
    options = SamplingOptions(1, TIMESTAMPS, timestamps_seconds=printed)
    assert choose_frames(timeline, options).indices == tuple(range(600))


def test_two_times_of_one_frame_are_seen_once_and_that_is_told() -> None:
    options = SamplingOptions(1, TIMESTAMPS, timestamps_seconds=(1.0, 1.01, 2.0))
    choice = choose_frames(at_constant_rate(100), options)
    assert choice.indices == (25, 50)
    assert choice.notes == ("Of the 3 times some show the same frame, which is seen once: 2 frames are taken.",)


def test_a_time_beyond_the_end_is_named() -> None:
    timeline = at_constant_rate(100)
    assert choose_frames(timeline, SamplingOptions(1, TIMESTAMPS, timestamps_seconds=(4.0,))).indices == (99,)
    with pytest.raises(RangeOutsideVideoError) as raised:
        choose_frames(timeline, SamplingOptions(1, TIMESTAMPS, timestamps_seconds=(1.0, 75.0, 80.0)))
    assert raised.value.message == "The times 1:15 and 1 more lie beyond the end of the video, at 0:04."
    longer = Timeline(timeline.timestamps_seconds, duration_seconds=90.0)  # the last frame stays
    assert choose_frames(longer, SamplingOptions(1, TIMESTAMPS, timestamps_seconds=(75.0,))).indices == (99,)


@pytest.mark.parametrize("strategy", SamplingStrategy)
def test_two_frames_are_both_seen_by_every_strategy(strategy: SamplingStrategy) -> None:
    options = SamplingOptions(
        strategy=strategy,
        fps=1.0 if strategy is FPS else None,
        timestamps_seconds=(0.0, 1.0) if strategy is TIMESTAMPS else None,
    )
    assert choose_frames(Timeline([0.0, 1.0], key_frames=(0, 1)), options).indices == (0, 1)


@pytest.mark.parametrize("module", [sampling, scenes], ids=lambda module: module.__name__)
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
