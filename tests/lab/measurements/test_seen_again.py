"""The command that measures what asking again costs, on a short video."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfvqa.cli.app import build_app
from sfvqa.cli.demo import load_demo_videos
from sfvqa.lab.measurements import seen_again
from sfvqa.lab.measurements.seen_again import COLD, FROM_DISK, IN_MEMORY

VIDEO = Path(load_demo_videos()[0].path)


def test_what_is_kept_is_not_read_or_encoded_again() -> None:
    cold, kept, further = seen_again.measure_stages("tiny", VIDEO, 1, None)
    assert (cold.question, kept.question, further.question) == (COLD, FROM_DISK, IN_MEMORY)
    assert cold.read_seconds > kept.read_seconds > further.read_seconds == 0
    assert cold.encode_seconds > kept.encode_seconds > further.encode_seconds == 0
    assert (cold.reused, kept.reused) == (0, 0) < (further.reused, 1)
    assert cold.answer == kept.answer == further.answer == "The digit 7"  # four tokens
    table = seen_again.stages_table([cold, kept, further])
    assert "| 100.0% |" in table
    assert len(table.splitlines()) == 5


def ask_here(command: list[str], *, env: dict[str, str], **_: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m sfvqa …` in this process, for the sake of seconds."""
    assert command[:3] == [sys.executable, "-m", "sfvqa"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SFVQA_CACHE_DIR", env["SFVQA_CACHE_DIR"])
        result = CliRunner().invoke(build_app(), command[3:])
    assert result.exit_code == 0, result.output
    return subprocess.CompletedProcess(command, 0, result.stdout)


def test_every_way_of_asking_gives_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_again, "TEN_QUESTIONS", seen_again.TEN_QUESTIONS[:2])
    monkeypatch.setattr(subprocess, "run", ask_here)
    results = seen_again.measure_calls("tiny", VIDEO, 1, None)
    assert len({result.answers for result in results}) == 1
    assert results[0].answers == ("The screen flashes green.", "The digit 7 is shown.")
    assert seen_again.calls_table(results).count("2 of 2") == 4
