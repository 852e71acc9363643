"""The command in a process of its own, with real weights, where the system is against it: every end is clean and told.

What each of them looks like from within is in test_journal, test_listing and test_runner.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from sfvqa.batch.record import read_records
from tests.inference.conftest import write_video
from tests.windows import needs_signals

pytestmark = [pytest.mark.slow, needs_signals]

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve of them, 00.mp4 to 11.mp4."""
    folder = tmp_path_factory.mktemp("hostile") / "videos"
    folder.mkdir()
    for number in range(12):
        write_video(folder / f"{number:02}.mp4", num_frames=8, colour=(20 * number, 80, 160))
    return folder


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a batch, one video after the other; whatever happens it has ended after the test."""
    running: list[subprocess.Popen[str]] = []

    def start_one(source: Path, out: Path | str, *flags: str, **more: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "sfvqa", "batch", str(source), "--question", "What moves?", "-o", str(out)]
        command += ["--model", "tiny", "--device", "cpu", "--max-new-tokens", "16", "--no-cache", "--readers", "1"]
        environment = {**os.environ, "SFVQA_CACHE_DIR": str(tmp_path / "cache")}
        given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment, **more}
        running.append(subprocess.Popen([*command, *flags], text=True, **given))
        return running[-1]

    yield start_one
    for process in running:
        process.kill()
        process.communicate()


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """The exit code, and what was said on stderr, which is never a traceback."""
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said
    return process.returncode, said


def wait_for_records(out: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while not (out.exists() and out.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def statuses(out: Path) -> dict[str, str]:
    """By the name of the video; every line must be whole."""
    notices: list[str] = []
    records = list(read_records(out, notices))
    assert notices == []
    assert out.read_bytes().endswith(b"\n")
    assert len({record["item_id"] for record in records}) == len(records)
    return {record["video"]: record["status"] for record in records}


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A file system of its own in a folder, and how to change it; the test is skipped where that is not allowed."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip("this user mounts nothing")

    def change(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_it_and_with_room_the_same_command_goes_on(start: Start, videos: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "8k") as change:
        out = tmp_path / "small" / "out.jsonl"
        code, said = finish(start(videos, out))
        assert code == 1
        assert "No space left on device" in said
        assert "rerun the command; what is in it is kept" in said
        assert 1 <= len(statuses(out)) < 12
        change("size=1m")
        assert finish(start(videos, out))[0] == 0
        assert set(statuses(out).values()) == {"ok"}
        assert len(statuses(out)) == 12


def test_a_limit_on_files_is_told_and_leaves_whole_lines(start: Start, videos: Path, tmp_path: Path) -> None:
    """The same without privileges: the system lets no file grow beyond 8 KiB."""
    import resource

    out = tmp_path / "out.jsonl"
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))  # noqa: E731
    code, said = finish(start(videos, out, preexec_fn=limit))
    assert code == 1
    assert "File too large" in said
    assert 1 <= len(statuses(out)) < 12
    assert finish(start(videos, out))[0] == 0
    assert len(statuses(out)) == 12


def test_a_read_only_output_is_said_before_a_model_is_loaded(start: Start, videos: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "1m") as change:
        out = tmp_path / "small" / "out.jsonl"
        out.touch()
        change("ro")
        for path in (out, out.with_name("new.jsonl")):
            code, said = finish(start(videos, path))
            assert code == 1
            assert "Read-only file system" in said
            assert "answered" not in said


def test_a_closed_pipe_ends_it_quickly(start: Start, videos: Path) -> None:
    """`sfvqa batch … -o - | head -1`: exit code 1, for not everything was answered."""
    running = start(videos, "-", stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert '"status": "ok"' in running.stdout.readline()
    closed = time.monotonic()
    running.stdout.close()
    running.stdout = None
    code, said = finish(running)
    assert time.monotonic() - closed < 15
    assert code == 1
    assert "The reader of the records is gone" in said
    assert "goes on from there" not in said


def test_a_standard_output_that_was_closed_is_an_error(start: Start, videos: Path) -> None:
    """`sfvqa batch … -o - >&-`: all would be answered, and nothing kept."""
    code, said = finish(start(videos, "-", preexec_fn=lambda: os.close(1)))
    assert code == 1
    assert "“-” cannot be written: Bad file descriptor." in said


def test_of_two_that_write_to_one_file_the_second_is_refused(start: Start, videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = start(videos, out)
    wait_for_records(out)
    first.send_signal(signal.SIGSTOP)  # it must not be done before the second comes
    code, said = finish(start(videos, out))
    first.send_signal(signal.SIGCONT)
    assert code == 1
    assert "Another process is writing" in said
    assert finish(first)[0] == 0
    assert len(statuses(out)) == 12


def test_videos_that_are_deleted_or_replaced_meanwhile_cost_only_themselves(
    start: Start, videos: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out.jsonl"
    folder.mkdir()
    for video in videos.iterdir():
        (folder / video.name).write_bytes(video.read_bytes())
    running = start(folder, out)
    wait_for_records(out)
    (folder / "11.mp4").unlink()
    (folder / "10.mp4").write_bytes(b"\0\0\0\x18ftypmp42 no more")
    (folder / "09.mp4").unlink()
    os.mkfifo(folder / "09.mp4")  # opening it would wait for ever
    assert finish(running)[0] == 6
    wrong = {"09.mp4": "error", "10.mp4": "error", "11.mp4": "error"}
    assert statuses(out) == {f"{number:02}.mp4": "ok" for number in range(9)} | wrong


NAMES = [
    "new\nline.mp4", "film \N{MOVIE CAMERA}.mp4", "--help", "-o", "\x1b[31mred.mp4", "a*b?[c].mp4", "tab\t.mp4",
    " space .mp4", "quote'\".mp4", "<b>&.mp4", "http:x.mp4", "\u202egnp.mp4", "x" * 251 + ".mp4",
    os.fsdecode(b"not utf-8 \xff\xfe.mp4"),
]  # fmt: skip


def test_any_name_and_links_that_lead_back(start: Start, videos: Path, tmp_path: Path) -> None:
    """Each is answered under its own name; of links, what leads to a video is one, and no way goes round for ever."""
    folder, out = tmp_path / "videos", tmp_path / "out.jsonl"
    (folder / "within").mkdir(parents=True)
    content = (videos / "00.mp4").read_bytes()
    for name in NAMES:
        try:
            (folder / name).write_bytes(content)
        except OSError:  # not every file system has names that are not UTF-8
            pytest.skip("this file system does not have all of the names")
    (folder / "within" / "loop").symlink_to("..")
    (folder / "within" / "deep.mp4").symlink_to("../-o")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "nowhere.mp4").symlink_to("nothing.mp4")
    code, said = finish(start(folder, out))
    assert code == 6
    expected = dict.fromkeys([*NAMES, "within/deep.mp4"], "ok") | {"itself.mp4": "error", "nowhere.mp4": "error"}
    assert statuses(out) == expected
    assert "\x1b" not in said
    code, said = finish(start(folder, out))
    assert code == 6
    assert "0 of 17 items answered, 15 answered before, 2 failed before." in said


@pytest.mark.parametrize("replace", [False, True])
def test_an_output_that_is_taken_away_is_noticed(start: Start, videos: Path, tmp_path: Path, replace: bool) -> None:
    out = tmp_path / "out.jsonl"
    running = start(videos, out)
    wait_for_records(out)
    out.unlink()
    if replace:
        out.write_bytes(b"")
    code, said = finish(running)
    assert code == 1
    assert "was deleted or replaced while it was being written" in said
    assert "goes on from there" not in said
    assert (out.read_bytes() == b"") if replace else not out.exists()


def test_a_pipe_that_nobody_reads_is_waited_for_and_says_so(start: Start, videos: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    running = start(videos, pipe)
    assert running.stderr is not None
    assert running.stderr.readline() == f"Waiting for a reader of “{pipe}”.\n"
    with pipe.open("rb") as reading:
        assert reading.read().count(b'"status": "ok"') == 12
    assert finish(running)[0] == 0


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_way_of_ending_it_leaves_a_file_to_go_on_with(
    start: Start, videos: Path, tmp_path: Path, name: str
) -> None:
    """Ctrl-C, the end of a job, and a terminal that is closed."""
    out, number = tmp_path / "out.jsonl", getattr(signal, name)
    running = start(videos, out)
    wait_for_records(out, 2)  # the last may not be on the disk yet, and is then taken back
    running.send_signal(number)
    code, said = finish(running)
    assert code == 128 + number
    assert "What is done is kept; rerun the command to resume." in said
    assert 1 <= len(statuses(out)) < 12
    assert finish(start(videos, out))[0] == 0
    assert len(statuses(out)) == 12


def press_ctrl_c_until_it_ends(running: "subprocess.Popen[str]") -> None:
    """As a key that is held down: two that come at once are one to the system."""
    began = time.monotonic()
    while running.poll() is None:
        assert time.monotonic() - began < 30  # a second of it on a quiet machine
        running.send_signal(signal.SIGINT)
        time.sleep(0.01)


def test_a_second_ctrl_c_does_not_wait_for_the_first(start: Start, videos: Path, tmp_path: Path) -> None:
    """Nor does it leave half a line, or a process that reads."""
    out = tmp_path / "out.jsonl"
    running = start(videos, out)
    wait_for_records(out, 2)
    children = child_processes(running.pid)
    press_ctrl_c_until_it_ends(running)
    assert finish(running)[0] == 130
    assert set(statuses(out).values()) == {"ok"}
    deadline = time.monotonic() + 10
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert finish(start(videos, out))[0] == 0
    assert len(statuses(out)) == 12


@contextlib.contextmanager
def read_as_a_terminal_does(ours: int) -> Iterator[bytearray]:
    """What comes, while it comes: a terminal that nobody reads is full after some seconds, and stops who writes."""
    said = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # Linux says EIO when the other end is closed
            while data := os.read(ours, 65536):
                said.extend(data)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    yield said
    reader.join(60)
    os.close(ours)


def test_a_second_ctrl_c_brings_the_cursor_back(start: Start, videos: Path, tmp_path: Path) -> None:
    """The live display hides it, and is not given the time to show it again."""
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    out = tmp_path / "out.jsonl"
    running = start(videos, out, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    with read_as_a_terminal_does(ours) as said:
        wait_for_records(out, 2)
        press_ctrl_c_until_it_ends(running)
    assert running.returncode == 130
    assert 0 <= said.rfind(b"\x1b[?25l") < said.rfind(b"\x1b[?25h")


STANDS_STILL = """
import os, signal, sys, time
from sfvqa.cli.exits import Interrupt
signal.signal(signal.SIGINT, Interrupt())
os.set_blocking(2, False)
try:
    while {is_full} and os.write(2, b"." * 1024):
        pass
except BlockingIOError:
    pass
os.set_blocking(2, True)
try:
    print("waits", flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    print("tidies up", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("is_full", [False, True])
def test_a_second_ctrl_c_does_not_wait_for_the_terminal(is_full: bool) -> None:
    """One that was stopped takes nothing: the cursor was to be shown there first, and the process never ended."""
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    program, environment = STANDS_STILL.format(is_full=is_full), {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    ) as running:
        try:
            assert running.stdout is not None
            for said in ("waits\n", "tidies up\n"):
                assert running.stdout.readline() == said
                running.send_signal(signal.SIGINT)
            assert running.wait(30) == 130
        finally:
            running.kill()
    assert os.get_blocking(theirs)
    os.close(theirs)
    if not is_full:
        assert os.read(ours, 1024) == b"\x1b[?25h\r\n"
    os.close(ours)


def child_processes(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children())


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_a_manifest_is_never_written_over(start: Start, videos: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(f"video\n{videos / '00.mp4'}\n", encoding="utf-8")
    before = manifest.read_bytes()
    code, said = finish(start(manifest, manifest, *flags))
    assert code == 2
    assert "is not a file of records" in said
    assert manifest.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.csv"]
