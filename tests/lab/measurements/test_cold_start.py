"""The command that measures the time to the first token from outside."""

import sys
from pathlib import Path

import pytest

from sfvqa.errors import SfvqaError
from sfvqa.lab.measurements import cold_start
from sfvqa.lab.measurements.cold_start import (
    HERE,
    NOTHING_KEPT,
    VIDEO_KEPT,
    WITH_SERVER,
    Start,
    ask_once,
    measure,
    starts_table,
)

FAKE = """
import os, sys, time
from pathlib import Path
cache = Path(os.environ["SFVQA_CACHE_DIR"])
time.sleep(0.5 * (not cache.exists()))
cache.touch()
if sys.argv[1] == "serve":
    run = Path(os.environ["SFVQA_RUNTIME_DIR"])
    run.mkdir()
    (run / "1.sock").touch()
    time.sleep(60)
print("The", end="", flush=True)
time.sleep(0.5)
print(" end", sys.argv[1:])
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A program in place of sfvqa, which is slower where nothing is kept."""
    package = tmp_path / "other" / "sfvqa"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE)
    return package.parent


def test_the_first_byte_stops_the_clock(checkout: Path) -> None:
    first, second = measure([checkout], ["clip.mp4", "What?"], 1, None)
    assert (first.way, second.way) == (NOTHING_KEPT, VIDEO_KEPT)
    assert first.answer == second.answer == "The end ['ask', 'clip.mp4', 'What?']"
    assert first.first_token_seconds >= second.first_token_seconds + 0.25
    assert all(one.total_seconds >= one.first_token_seconds + 0.4 for one in (first, second))


def test_with_a_server_it_is_asked_beside_it(checkout: Path) -> None:
    """Which has ended afterwards; one that does not start is said."""
    *_, last = measure([checkout], ["clip.mp4", "What?"], 1, ["--model", "tiny"])
    assert (last.way, last.answer) == (WITH_SERVER, "The end ['ask', 'clip.mp4', 'What?']")
    (checkout / "sfvqa" / "__main__.py").write_text("raise SystemExit('no model')")
    with pytest.raises(SfvqaError, match="no model"):
        measure([checkout], ["clip.mp4", "What?"], 1, ["--model", "tiny"])


def test_a_run_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(SfvqaError, match="exit code 3"):
        ask_once(HERE, NOTHING_KEPT, ["absent.mp4", "What?"], tmp_path)


def test_the_table_has_medians() -> None:
    runs = [Start("here", way, seconds, seconds + 1, "") for way in ("a", "b") for seconds in (1.0, 2.0, 9.0)]
    rows = starts_table(runs).splitlines()[2:]
    assert rows == ["| a | here | 2.00 s | 1.00–9.00 s | 3.00 s |", "| b | here | 2.00 s | 1.00–9.00 s | 3.00 s |"]


def test_it_runs_as_a_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold_start, "ask_once", lambda checkout, way, *_: Start(checkout.name, way, 1.0, 2.0, "yes"))
    cold_start.main(["--repeats", "2", "--beside", str(Path(sys.executable).parent)])
    assert capsys.readouterr().out.count("| 1.00 s |") == 4
