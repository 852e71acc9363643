"""Text made safe for terminals."""

import pytest

from sfvqa.cli.screen import printable, printable_line
from sfvqa.wording import plural, readable_size


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"),
        ("Göteborg 東京 👩‍🚀", "Göteborg 東京 👩‍🚀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x07\r\x7f", "\\x1b[2J\\x07\\r\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("caf\udce9", "caf\\udce9"),
    ],
)
def test_printable_spells_out_what_a_terminal_would_obey(text: str, safe: str) -> None:
    """Letters of all languages stay, joined emoji too."""
    assert printable(text) == safe


def test_a_name_stays_on_its_line() -> None:
    """A newline in a file name could fake a line of ours."""
    assert printable_line("clip\nError: gone\t.mp4") == "clip\\nError: gone\\t.mp4"


def test_numbers_read_well() -> None:
    """Sizes as disks are sold; one is singular."""
    assert [readable_size(size) for size in (999, 3_800_000, 999_999, 17_001_296_608)] == [
        "999 bytes",
        "3.8 MB",
        "1.0 MB",
        "17.0 GB",
    ]
    assert (plural(1, "frame"), plural(2, "frame"), plural(12345, "frame")) == ("1 frame", "2 frames", "12,345 frames")
