"""The journal of a process that is killed: nothing is lost that was said to be written, and nothing stays torn."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sfvqa.batch.journal import Journal
from sfvqa.batch.record import parse_line, read_records
from sfvqa.errors import JournalError
from tests.batch.made import error_of, id_of
from tests.windows import needs_signals

pytestmark = needs_signals

_APPEND_FOR_EVER = """
import os, subprocess, sys, time
from pathlib import Path
from sfvqa.batch.journal import Journal
from tests.batch.made import error_of, id_of, ok_of

first, how = int(sys.argv[2]), sys.argv[3]

class Slow:
    # A disk that takes a hundred bytes at a time.
    def __init__(self, stream):
        self.fileno, self.flush, self.close, self._write = stream.fileno, stream.flush, stream.close, stream.write
    def write(self, data):
        time.sleep(0.0001)
        return self._write(data[:100])

if how == "with a child":
    subprocess.Popen(["sleep", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
with Journal(Path(sys.argv[1])) as journal:
    if how == "slowly":
        journal._stream = Slow(journal._stream)
    print("open", flush=True)
    for number in range(first, first + 100_000):
        journal.append(error_of(number))
        journal.append(ok_of(number))
        os.write(1, f"{number}\\n".encode())
"""


def start(path: Path, first: int = 0, how: str = "") -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", _APPEND_FOR_EVER, str(path), str(first), how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    return process


def kill(process: "subprocess.Popen[bytes]") -> list[int]:
    """The numbers that it had said to be written."""
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=20)
    return [int(line) for line in said.split(b"\n")[:-1]]


def check(path: Path, said: list[int]) -> str:
    """What the notice says of the file, which is sound afterwards and holds what was said."""
    with Journal(path) as journal:
        assert all(journal.done[id_of(number)] == "ok" for number in said)
        notices = journal.notices
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    records = [parse_line(line) for line in content.splitlines()]
    answered = [record["item_id"] for record in records if record and record["status"] == "ok"]
    assert None not in records
    assert len(answered) == len(set(answered))
    return " ".join(notices)


@pytest.mark.slow
def test_killed_again_and_again_nothing_is_lost_or_torn(tmp_path: Path) -> None:
    path, said, num_torn = tmp_path / "out.jsonl", list[int](), 0
    moments = random.Random(0)
    for round_number in range(200):
        if round_number >= 20 and num_torn >= 3:  # with fewer this would show nothing
            break
        process = start(path, 1000 * round_number, "slowly" if round_number % 2 else "")
        time.sleep(moments.uniform(0, 0.1))
        said += kill(process)
        notice = check(path, said)
        assert not notice or ("torn" in notice and "cut off" in notice)
        num_torn += bool(notice)
    assert len(said) > 20
    assert num_torn >= 3


def test_killed_once_nothing_is_lost_or_torn(tmp_path: Path) -> None:
    process = start(tmp_path / "out.jsonl", 0, "slowly")
    time.sleep(0.05)
    check(tmp_path / "out.jsonl", kill(process))


def test_the_lock_is_held_between_processes_and_goes_with_the_one_that_is_killed(tmp_path: Path) -> None:
    """Though a program that it started goes on."""
    path = tmp_path / "out.jsonl"
    process = start(path, 0, "with a child")
    began = time.monotonic()
    with pytest.raises(JournalError, match="Another process is writing"):
        Journal(path)
    assert time.monotonic() - began < 1
    assert kill(process) is not None
    with Journal(path) as journal:
        journal.append(error_of(999_999))
    assert list(read_records(path))[-1]["item_id"] == id_of(999_999)


_OVERWRITE = """
import sys
from pathlib import Path
from sfvqa.batch.journal import Journal
from sfvqa.errors import JournalError
from tests.batch.made import ok_of

sys.stdin.readline()
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
    try:
        with Journal(Path(sys.argv[1]), overwrite=True) as journal:
            journal.append(ok_of(number))
            print(number, flush=True)
    except JournalError:
        pass
"""


@pytest.mark.slow
def test_several_that_overwrite_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each record that was said to be written is in one of the files, whoever moved which aside."""
    path = tmp_path / "out.jsonl"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _OVERWRITE, str(path), str(1000 * number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    said = [int(line) for process in processes for line in process.communicate(timeout=60)[0].split()]
    kept = [record["item_id"] for file in tmp_path.iterdir() for record in read_records(file)]
    assert len(said) >= 20
    assert sorted(kept) == sorted(map(id_of, said))
