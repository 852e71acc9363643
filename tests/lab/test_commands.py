"""The laboratory's commands say where they live, end without a traceback, and print tables that Markdown reads."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from sfvqa.errors import ExitCode, UsageError
from sfvqa.lab.commands import errors_without_traceback, markdown_table, medians, write_figures
from tests.readme import LAB

COMMANDS = sorted(
    ".".join(path.relative_to(LAB).with_suffix("").parts)
    for path in LAB.rglob("*.py")
    if "def parse_arguments(" in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_itself_as_it_is_typed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"sfvqa.lab.{name}").parse_arguments(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.split()[:4] == ["usage:", "python", "-m", f"sfvqa.lab.{name}"]


def test_an_error_raised_on_purpose_is_a_line_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, errors_without_traceback():
        raise UsageError("There is none.", "Make one.")
    assert ended.value.code == ExitCode.USAGE
    assert capsys.readouterr().err == "There is none. Make one.\n"


def test_a_table_has_words_left_and_numbers_right() -> None:
    table = markdown_table(["video", "reader", "seconds"], [["short", "ours", "1.5"]], num_texts=2)
    assert table == "| video | reader | seconds |\n|---|---|---:|\n| short | ours | 1.5 |"


@dataclass(frozen=True)
class Run:
    name: str
    seconds: float
    bytes: int | None


@pytest.mark.parametrize("seconds", [[1.0, 9.0, 2.0], [2.0, 2.0, 100.0]])
def test_one_slow_run_does_not_count_and_what_is_unknown_is_left_out(seconds: list[float]) -> None:
    runs = [Run("a", each, None) for each in seconds]
    assert medians(runs, "seconds", "bytes") == Run("a", 2.0, None)
    assert medians([*runs, Run("a", 2.0, 7)], "bytes").bytes == 7


def test_figures_are_written_where_a_path_is_given(tmp_path: Path) -> None:
    write_figures(None, runs=[])
    write_figures(tmp_path / "a.json", runs=[1])
    assert json.loads((tmp_path / "a.json").read_text()) == {"schema_version": 1, "runs": [1]}
