"""What contradicts itself is a usage error when it is built, in a sentence that says what to do."""

from typing import Any

import pytest

from sfvqa.errors import UsageError
from sfvqa.video import SamplingOptions, SamplingStrategy

FPS, TIMESTAMPS, UNIFORM = SamplingStrategy.FPS, SamplingStrategy.TIMESTAMPS, SamplingStrategy.UNIFORM


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_frames": 0}, "0 frames were asked for"),
        ({"num_frames": -3}, "-3 frames were asked for"),
        ({"start_seconds": -1.0}, "The start of the range is -1.0 seconds"),
        ({"end_seconds": 0.0}, "ends at 0:00, not after its start"),
        ({"start_seconds": 5.0, "end_seconds": 5.0}, "ends at 0:05, not after its start at 0:05"),
        ({"start_seconds": 6.0, "end_seconds": 5.0}, "ends at 0:05, not after its start at 0:06"),
        ({"end_seconds": float("nan")}, "The end of the range is nan seconds"),
        ({"start_seconds": 1e308}, "The start of the range is 1e+308 seconds"),
        ({"start_seconds": float("inf")}, "The start of the range is inf seconds"),
        ({"fps": 2.0}, "A rate of 2 frames a second was given, but frames are chosen by “uniform”"),
        ({"fps": 2.0, "strategy": TIMESTAMPS, "timestamps_seconds": (1.0,)}, "chosen by “timestamps”"),
        ({"strategy": FPS}, "“fps” a rate is needed"),
        ({"strategy": FPS, "fps": 0.0}, "The rate is 0 frames a second"),
        ({"strategy": FPS, "fps": -1.0}, "The rate is -1 frames a second"),
        ({"strategy": FPS, "fps": float("nan")}, "The rate is nan frames a second"),
        ({"strategy": FPS, "fps": float("inf")}, "The rate is inf frames a second"),
        ({"timestamps_seconds": (1.0,)}, "Times were given, but frames are chosen by “uniform”"),
        ({"timestamps_seconds": ()}, "Times were given, but"),
        ({"strategy": TIMESTAMPS}, "at least one time is needed"),
        ({"strategy": TIMESTAMPS, "timestamps_seconds": ()}, "at least one time is needed"),
        ({"strategy": TIMESTAMPS, "timestamps_seconds": (1.0, -2.0)}, "One of the times is -2.0 seconds"),
        ({"strategy": TIMESTAMPS, "timestamps_seconds": (float("nan"),)}, "One of the times is nan seconds"),
        (
            {"strategy": TIMESTAMPS, "timestamps_seconds": (75.0,), "start_seconds": 80.0},
            "The time 1:15 lies outside the range from 1:20.",
        ),
        (
            {"strategy": TIMESTAMPS, "timestamps_seconds": (3.0, 75.0), "end_seconds": 70.0},
            "The time 1:15 lies outside the range from 0:00 to 1:10.",
        ),
    ],
)
def test_contradictory_options_are_usage_errors_when_built(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        SamplingOptions(**arguments)
    assert sentence in raised.value.message
    assert raised.value.message.endswith(".")
    assert raised.value.remedy.endswith(".")
    assert raised.value.exit_code == 2


def test_what_fits_together_is_built() -> None:
    assert SamplingOptions(strategy=FPS, fps=0.01, start_seconds=0.0).fps == 0.01
    times = (20.0, 10.0)
    options = SamplingOptions(strategy=TIMESTAMPS, timestamps_seconds=times, start_seconds=10.0, end_seconds=20.0)
    assert options.timestamps_seconds == times
