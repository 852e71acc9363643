"""Questions from a file: one a line, after those on the command line; what is no question file is a usage error."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.errors import ExitCode
from tests.cli.conftest import RunCli
from tests.cli.fake import ScriptedVideoQA
from tests.windows import needs_pipes


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.txt"
    path.write_bytes("\ufeffWhere is it?\r\n\r\n  Wörüber?  \n".encode())
    return path


def asked_of(model: ScriptedVideoQA) -> list[str]:
    return [question for question, _ in model.asked]


def test_lines_are_questions_after_those_on_the_command_line(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, questions: Path
) -> None:
    model.script = [["A."], ["B."], ["C."]]
    run = run_cli("ask", str(video), "First?", "--questions", str(questions), "-q")
    assert run.stdout == "A.\nB.\nC.\n"
    assert asked_of(model) == ["First?", "Where is it?", "Wörüber?"]


def test_only_what_editors_call_the_end_of_a_line_ends_a_question(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, tmp_path: Path
) -> None:
    """Text from web pages may hold separators that Python's splitlines takes for ends."""
    path = tmp_path / "questions.txt"
    path.write_bytes("Where\u2028is\x85it?\rWhich\x0bone?\r\nWhy?\n".encode())
    model.script = [["A."], ["B."], ["C."]]
    assert run_cli("ask", str(video), "--questions", str(path), "-q").exit_code == 0
    assert asked_of(model) == ["Where\u2028is\x85it?", "Which\x0bone?", "Why?"]


def test_a_file_alone_is_enough_also_on_standard_input(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"Where?\n")))
    assert run_cli("ask", str(video), "--questions", "-", "-q").exit_code == 0
    assert asked_of(model) == ["Where?"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"\n \n", "no question in"), (b"caf\xe9?\n", "not UTF-8"), (None, "cannot be read: No such file")],
)
def test_what_is_no_question_file_is_a_usage_error(
    run_cli: RunCli, video: Path, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "questions.txt"
    if content is not None:
        path.write_bytes(content)
    run = run_cli("ask", str(video), "--questions", str(path))
    assert run.exit_code == ExitCode.USAGE
    assert said in " ".join(run.stderr.split())


@needs_pipes
def test_a_file_without_end_is_refused(run_cli: RunCli, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `yes | sfvqa ask --questions -` is; it was read until memory ran out."""
    run = run_cli("ask", str(video), "--questions", "/dev/zero")
    assert (run.exit_code, run.stderr) == (
        ExitCode.USAGE,
        "Error: There is more than 16.0 MB in “/dev/zero”, too much to read.\n"
        "Check that it is the right file, or split it.\n",
    )
    with Path("/dev/zero").open(encoding="latin-1") as zeros:
        monkeypatch.setattr(sys, "stdin", zeros)
        run = run_cli("ask", str(video), "--questions", "-")
    assert "There is more than 16.0 MB in standard input" in run.stderr


def test_a_question_as_long_as_a_book_is_refused(run_cli: RunCli, video: Path, tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("Where?\n" + "a" * 1_000_001, encoding="utf-8")
    run = run_cli("ask", str(video), "--questions", str(path))
    assert run.exit_code == ExitCode.USAGE
    assert run.stderr == "Error: The question has more than 1,000,000 characters.\nNo model accepts that many.\n"


def test_without_any_question_the_file_is_named(run_cli: RunCli, video: Path) -> None:
    run = run_cli("ask", str(video))
    assert run.exit_code == ExitCode.USAGE
    assert "--questions" in run.stderr


def test_standard_input_cannot_be_both(run_cli: RunCli) -> None:
    run = run_cli("ask", "-", "--questions", "-")
    assert run.exit_code == ExitCode.USAGE
    assert "both" in run.stderr


# --- batches ---


def test_questions_are_answered_in_batches_and_printed_in_order(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA
) -> None:
    model.script = [["A."], ["B."], ["C."]]
    run = run_cli("ask", str(video), "One?", "Two?", "Three?", "--batch-size", "2", "-v")
    assert run.stdout == "A.\n\nB.\n\nC.\n"
    assert model.batches == [["One?", "Two?"], ["Three?"]]
    assert run.stderr.index("One?") < run.stderr.index("Three?")


@pytest.mark.parametrize("size", ["auto", "1"])
def test_what_a_batch_may_choose_for_itself_is_one_here(
    run_cli: RunCli, video: Path, model: ScriptedVideoQA, monkeypatch: pytest.MonkeyPatch, size: str
) -> None:
    """The variable and the config file are those of `sfvqa batch` too."""
    monkeypatch.setenv("SFVQA_BATCH_SIZE", size)
    model.script = [["A."], ["B."]]
    assert run_cli("ask", str(video), "One?", "Two?", "-q").stdout == "A.\nB.\n"
    assert model.batches == []


def test_a_batch_size_that_is_none_is_refused(run_cli: RunCli, video: Path) -> None:
    run = run_cli("ask", str(video), "One?", "--batch-size", "0")
    assert run.exit_code == ExitCode.USAGE
    assert "--batch-size" in run.stderr
