"""Counts in words: one of a thing is no plural, of any number type."""

import pytest

from sfvqa.wording import plural


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 frames"), (1, "1 frame"), (2, "2 frames"), (1234567, "1,234,567 frames"),
        (1.0, "1 frame"), (0.5, "0.5 frames"), (600.0, "600 frames"), (3600.0, "3,600 frames"),
    ],
)  # fmt: skip
def test_counts(count: float, words: str) -> None:
    """Limits in seconds and rates are no whole numbers: "within 1 seconds", "at 1 frames a second"."""
    assert plural(count, "frame") == words
