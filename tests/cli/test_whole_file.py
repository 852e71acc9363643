"""A file comes whole or not at all, and what a process that was killed left beside it goes with the next one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfvqa.cli.whole_file import whole_text_file
from tests.windows import as_on_windows, needs_pipes, needs_signals

_KILLED = """
import os, signal, sys
from pathlib import Path
from sfvqa.cli.whole_file import whole_text_file

with whole_text_file(Path(sys.argv[1])) as file:
    file.write("half")
    file.flush()
    if sys.argv[2] == "waits":
        print("writing", flush=True)
        sys.stdin.read()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def writing(path: Path, what: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", _KILLED, str(path), what]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def partial_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(".sfvqa-*.part"))


def age(path: Path) -> None:
    before = time.time() - 7200
    os.utime(path, (before, before))


@needs_signals
def test_what_was_left_by_killed_processes_goes_and_what_others_write_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on Windows, which removes no file that is open: there, what was left stayed for ever."""
    as_on_windows(monkeypatch)
    assert writing(tmp_path / "killed.txt", "dies").wait() == -signal.SIGKILL
    (left,) = partial_in(tmp_path)
    with writing(tmp_path / "waiting.txt", "waits") as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "writing\n"
        (being_written,) = set(partial_in(tmp_path)) - {left}
        age(left)
        age(being_written)
        new = tmp_path / ".sfvqa-0123456789abcdef.part"  # by another machine, say, a moment ago
        new.write_text("new")
        foreign = tmp_path / ".sfvqa-notes.part"
        foreign.write_text("mine")
        age(foreign)
        with whole_text_file(tmp_path / "own.txt") as file:
            file.write("whole")
        assert partial_in(tmp_path) == sorted([being_written, new, foreign])
        other.communicate()
        assert other.returncode == 0
    assert (tmp_path / "waiting.txt").read_text() == "half"
    assert (tmp_path / "own.txt").read_text() == "whole"


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "there.txt").write_text("before")
    with contextlib.suppress(ZeroDivisionError), whole_text_file(tmp_path / "there.txt") as file:
        file.write("half")
        raise ZeroDivisionError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.txt", "before")]


@needs_pipes
def test_a_pipe_of_such_a_name_is_not_waited_for(tmp_path: Path) -> None:
    """To open it waits for one who writes, without end."""
    pipe = tmp_path / f".sfvqa-{0:016x}.part"
    os.mkfifo(pipe)
    age(pipe)
    with whole_text_file(tmp_path / "new.txt") as file:
        file.write("whole")
    assert (pipe.exists(), (tmp_path / "new.txt").read_text()) == (True, "whole")
