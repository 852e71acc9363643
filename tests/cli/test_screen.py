"""What is printed is safe on a terminal, and its lines end between words; in a pipe they stay whole."""

import io

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.cli.screen import WordWriter, printable, printable_line, wrap
from sfvqa.wording import readable_size
from tests.cli.conftest import RunCli, RunOnTerminal

VIDEO = str(load_demo_videos()[0].path)
COMMANDS = [
    ("models", "list"),
    ("models", "info", "slowfast-7b-64f"),
    ("frames", VIDEO, "--frames", "500", "--timestamps", "1"),  # an error of two sentences
    ("ask", "no-such-file.mp4", "What happens in this video, and when does it happen?"),
    ("ask", VIDEO, "What flashes?", "--model", "slowfast-7b-64f", "--dry-run", "--device", "cpu", "--frames", "500"),
    ("cache", "size"),
    ("doctor",),
]


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_word_is_cut(
    run_cli: RunCli,
    run_on_terminal: RunOnTerminal,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    columns: int,
) -> None:
    """Words were cut where the terminal ended, in notices, warnings and `models list`."""
    whole = run_cli(*command)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "dumb")  # no spinners
    lines = run_on_terminal(*command)[1].splitlines()
    too_wide = [line for line in lines if len(line) > columns]
    assert all(max(map(len, line.split())) > columns // 3 for line in too_wide)  # a path may be
    words = {word for line in lines for word in line.split() if word.strip("─")}
    assert {word for word in words if not _is_measured(word)} <= set(f"{whole.stdout} {whole.stderr}".split())


def _is_measured(word: str) -> bool:
    """Whether it may differ from one run to the next: a number, or the unit of an estimated time.

    On a loaded machine, whose speed is measured anew, 54 minutes were 2 hours in the second run.
    """
    units = ("second", "seconds", "minute", "minutes", "hour", "hours")
    return any(character.isdigit() for character in word) or word.rstrip(".,;") in units


def test_what_goes_on_below_begins_as_its_line_does() -> None:
    assert wrap("  one two three", 9) == "  one two\n  three"
    assert wrap("label   one two", 11, hanging=8) == "label   one\n        two"
    assert wrap("one two", None) == "one two"
    assert wrap("\n a\n", 2) == "\n a\n"


def test_a_character_may_be_two_columns_wide() -> None:
    assert wrap("視頻 視頻", 8) == "視頻\n視頻"
    assert wrap("視頻 視頻", 9) == "視頻 視頻"


def test_a_word_that_is_wider_stays_whole() -> None:
    assert wrap("see /a/path/that/is/long for more", 10) == "see\n/a/path/that/is/long\nfor more"


@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The screen flashes.", "The screen\nflashes."),
        ("One two\n\nthree  four.", "One two\n\nthree\nfour."),
        ("unbreakablewords here", "unbreakablewords\nhere"),
        ("end \n", "end \n"),
        ("", ""),
    ],
)
def test_an_answer_that_is_written_breaks_between_words(
    monkeypatch: pytest.MonkeyPatch, size: int, text: str, shown: str
) -> None:
    """However its pieces are cut; "The scre" and "en" once stood in two lines."""
    monkeypatch.setenv("COLUMNS", "10")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    words = WordWriter(stream)
    for start in range(0, len(text), size):
        words.write(text[start : start + size])
    words.close()
    assert stream.getvalue() == shown


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


def test_sizes_read_well() -> None:
    """Sizes as disks are sold."""
    assert [readable_size(size) for size in (999, 3_800_000, 999_999, 17_001_296_608)] == [
        "999 bytes",
        "3.8 MB",
        "1.0 MB",
        "17.0 GB",
    ]
