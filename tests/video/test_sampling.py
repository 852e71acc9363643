"""Sampling and the printing of times: arithmetic, no video."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import RangeOutsideVideoError, UsageError
from sfvqa.video import SamplingOptions, SamplingStrategy, choose_indices, format_time, parse_time

increasing_times = st.lists(st.floats(0.0, 5000.0), min_size=1, max_size=300, unique=True).map(
    lambda times: [time - min(times) for time in sorted(times)]
)


@given(increasing_times, st.integers(1, 400))
def test_uniform_covers_both_ends_with_as_many_frames_as_asked_for(times: list[float], num_frames: int) -> None:
    indices = choose_indices(times, SamplingOptions(num_frames=num_frames))
    assert indices == sorted(set(indices))
    assert len(indices) == min(num_frames, len(times))
    assert 0 <= indices[0] <= indices[-1] < len(times)
    if num_frames > 1:
        assert (indices[0], indices[-1]) == (0, len(times) - 1)


@given(increasing_times, st.integers(1, 400))
def test_uniform_is_even(times: list[float], num_frames: int) -> None:
    indices = choose_indices(times, SamplingOptions(num_frames=num_frames))
    steps = {later - earlier for earlier, later in pairwise(indices)}
    assert len(steps) <= 2
    assert max(steps, default=0) - min(steps, default=0) <= 1


@given(increasing_times, st.integers(1, 50), st.floats(0, 6000), st.floats(0.001, 6000))
def test_only_frames_shown_in_the_range_are_chosen(
    times: list[float], num_frames: int, start: float, length: float
) -> None:
    options = SamplingOptions(num_frames=num_frames, start_seconds=start, end_seconds=start + length)
    inside = [index for index, time in enumerate(times) if start <= time <= start + length]
    if not inside:
        with pytest.raises(RangeOutsideVideoError):
            choose_indices(times, options)
        return
    indices = choose_indices(times, options)
    assert len(indices) == min(num_frames, len(inside))
    assert set(indices) <= set(inside)
    if num_frames > 1:
        assert (indices[0], indices[-1]) == (inside[0], inside[-1])


def test_one_frame_is_the_middle_one() -> None:
    assert choose_indices([0.0, 1.0, 2.0], SamplingOptions(num_frames=1)) == [1]


def test_a_range_half_beyond_the_end_is_clipped() -> None:
    times = [0.0, 1.0, 2.0, 3.0]
    assert choose_indices(times, SamplingOptions(start_seconds=2.0, end_seconds=99.0)) == [2, 3]
    assert choose_indices(times, SamplingOptions(end_seconds=1.5)) == [0, 1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (SamplingOptions(start_seconds=75.0), "from 1:15 lies beyond the last frame of the video, at 0:03"),
        (SamplingOptions(start_seconds=1.2, end_seconds=1.4), "between two frames"),
    ],
)
def test_a_range_without_a_frame_is_an_error_that_says_where_the_video_ends(
    options: SamplingOptions, sentence: str
) -> None:
    with pytest.raises(RangeOutsideVideoError, match=sentence) as raised:
        choose_indices([0.0, 1.0, 2.0, 3.0], options)
    assert raised.value.remedy
    assert raised.value.exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_frames": 0},
        {"num_frames": -3},
        {"start_seconds": -1.0},
        {"end_seconds": 0.0},
        {"start_seconds": 5.0, "end_seconds": 5.0},
        {"start_seconds": 6.0, "end_seconds": 5.0},
        {"end_seconds": float("nan")},
        {"start_seconds": float("inf")},
    ],
)
def test_contradictory_options_are_usage_errors_when_built(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        SamplingOptions(**arguments)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("strategy", SamplingStrategy)
def test_every_strategy_runs(strategy: SamplingStrategy) -> None:
    assert choose_indices([0.0, 1.0], SamplingOptions(strategy=strategy)) == [0, 1]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01:30.5", 90.5), ("1:02:03", 3723), (" .5 ", 0.5), ("0", 0), ("100:00", 6000)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:75:00", "1:", "a", "1e3", "nan", "1:2:3:4", "٣", "5s"])
def test_what_is_no_time_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (90.5, "1:30.5"), (5.0004, "0:05"), (59.9999, "1:00"), (3600, "1:00:00"), (7.033, "0:07.033")],
)
def test_times_are_printed(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@given(st.integers(0, 10**9))
def test_what_is_printed_is_read_back(milliseconds: int) -> None:
    assert round(parse_time(format_time(milliseconds / 1000)) * 1000) == milliseconds
