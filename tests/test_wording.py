"""Counts in words: one of a thing is no plural, of any number type. And commands as a shell takes them."""

import os

import pytest

from sfvqa import wording
from sfvqa.wording import command_line, plural
from tests.windows import named_windows


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


def test_a_command_is_quoted_for_the_shell_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows' takes single quotes for letters."""
    words = ["sfvqa", "ask", "a.mp4", "Which one?"]
    if os.name != "nt":
        assert command_line(words) == "sfvqa ask a.mp4 'Which one?'"
    named_windows(monkeypatch, wording)
    assert command_line(words) == 'sfvqa ask a.mp4 "Which one?"'
