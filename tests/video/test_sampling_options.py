"""What contradicts itself is a usage error when it is built; times are read and printed as people write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import UsageError
from sfvqa.video import SamplingOptions, SamplingStrategy, format_time, parse_time

FPS, TIMESTAMPS = SamplingStrategy.FPS, SamplingStrategy.TIMESTAMPS


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
        {"start_seconds": 1e308},
        {"start_seconds": float("inf")},
        {"fps": 2.0},
        {"fps": 2.0, "strategy": TIMESTAMPS, "timestamps_seconds": (1.0,)},
        {"strategy": FPS},
        {"strategy": FPS, "fps": 0.0},
        {"strategy": FPS, "fps": -1.0},
        {"strategy": FPS, "fps": float("nan")},
        {"strategy": FPS, "fps": float("inf")},
        {"timestamps_seconds": (1.0,)},
        {"timestamps_seconds": ()},
        {"strategy": TIMESTAMPS},
        {"strategy": TIMESTAMPS, "timestamps_seconds": ()},
        {"strategy": TIMESTAMPS, "timestamps_seconds": []},
        {"strategy": TIMESTAMPS, "timestamps_seconds": (1.0, -2.0)},
        {"strategy": TIMESTAMPS, "timestamps_seconds": (float("nan"),)},
        {"strategy": TIMESTAMPS, "timestamps_seconds": (75.0,), "start_seconds": 80.0},
        {"strategy": TIMESTAMPS, "timestamps_seconds": (3.0, 75.0), "end_seconds": 70.0},
    ],
    ids=str,
)
def test_contradictory_options_are_usage_errors_when_built(arguments: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        SamplingOptions(**arguments)
    assert raised.value.remedy
    assert raised.value.exit_code == 2


def test_what_fits_together_is_built() -> None:
    assert SamplingOptions(strategy=FPS, fps=0.01, start_seconds=0.0).fps == 0.01
    times = (20.0, 10.0)
    options = SamplingOptions(strategy=TIMESTAMPS, timestamps_seconds=times, start_seconds=10.0, end_seconds=20.0)
    assert options.timestamps_seconds == times


# --- Times ---


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
