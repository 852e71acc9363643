"""Times as people write them: read, printed, and read back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import UsageError
from sfvqa.video import format_time, parse_time


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
