"""`-`: what comes in on standard input is read like a file, from a private copy that never outlives its use."""

import contextlib
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfvqa.errors import UnreadableVideoError, UsageError, VideoNotFoundError
from sfvqa.video.readers.local_file import local_video
from tests.windows import needs_pipes, needs_signals

from ..conftest import WriteVideo
from ..here import read_here
from ..videos import Recipe, constant_rate, number_in

SIX = Recipe(constant_rate(6))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which every test must leave empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir()), "a copy was left behind"


@contextmanager
def standard_input_from(source: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with os.fdopen(source, "rb") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stream)
        yield


@contextmanager
def pipe_of(content: bytes, monkeypatch: pytest.MonkeyPatch, *, left_open: bool = False) -> Iterator[None]:
    """Standard input is a pipe that someone writes `content` to."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb", closefd=not left_open) as stream:
            stream.write(content)

    writer = threading.Thread(target=write, daemon=True)
    with standard_input_from(read_end, monkeypatch):
        writer.start()
        yield
    writer.join(5)
    if left_open:
        os.close(write_end)


def test_a_path_is_given_back(tmp_path: Path) -> None:
    for path in (tmp_path / "a.mp4", "a.mp4", "./-x"):
        with local_video(path) as local:
            assert local == Path(path)


def test_a_video_from_a_pipe(video: WriteVideo, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    content = video("six.mp4", SIX).read_bytes()
    with pipe_of(content, monkeypatch), local_video("-") as path:
        assert path.read_bytes() == content
        assert path.is_relative_to(temporary)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert [number_in(frame) for frame in read_here(path).frames] == list(range(6))
    assert not path.exists()


def test_a_video_from_a_file(video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    source = os.open(video("six.mp4", SIX), os.O_RDONLY)
    with standard_input_from(source, monkeypatch), local_video(Path("-")) as path:
        assert read_here(path).video.num_frames == 6


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_the_copy_goes_when_its_use_fails(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, failure: type[BaseException]
) -> None:
    def use() -> None:
        with local_video("-") as path:
            assert path.is_relative_to(temporary)
            raise failure

    with pipe_of(b"x" * 100000, monkeypatch), pytest.raises(failure):
        use()


def test_errors_name_standard_input_and_no_temporary_file(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    with (
        pipe_of(b"no video\0", monkeypatch),
        pytest.raises(UnreadableVideoError) as raised,
        local_video("-") as path,
    ):
        read_here(path)
    assert raised.value.message == "Standard input cannot be read as a video."
    assert str(temporary) not in str(raised.value)
    with pytest.raises(VideoNotFoundError, match=r"“absent\.mp4”"), local_video("absent.mp4") as path:
        read_here(path)


def test_nothing_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe_of(b"", monkeypatch), pytest.raises(UnreadableVideoError, match="is empty"), local_video("-"):
        pass
    source = os.open(os.devnull, os.O_RDONLY)
    with (
        standard_input_from(source, monkeypatch),
        pytest.raises(UnreadableVideoError, match="is empty"),
        local_video("-"),
    ):
        pass


@needs_pipes
@pytest.mark.parametrize("content", [b"", b"begun"])
def test_a_pipe_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    begin = time.monotonic()
    with (
        pipe_of(content, monkeypatch, left_open=True),
        pytest.raises(UnreadableVideoError, match=f"in time: {len(content)} bytes"),
        local_video("-", timeout_seconds=0.2),
    ):
        pass
    assert time.monotonic() - begin < 5


@needs_pipes
@pytest.mark.parametrize("seconds", [0.3, 10])
def test_a_slow_pipe_is_waited_for_as_long_as_reading_may_take(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A byte now and then must not keep anybody waiting for ever."""
    read_end, write_end = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            for _ in range(8):
                time.sleep(0.1)
                os.write(write_end, b"x")
        os.close(write_end)

    thread = threading.Thread(target=write)
    thread.start()
    with standard_input_from(read_end, monkeypatch):
        if seconds > 1:
            with local_video("-", timeout_seconds=seconds) as path:
                assert path.stat().st_size == 8
        else:
            with pytest.raises(UnreadableVideoError, match="in time"), local_video("-", timeout_seconds=seconds):
                pass
    thread.join()


def test_a_video_larger_than_the_disk(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with (
        pipe_of(b"x" * 2_800_000, monkeypatch),
        pytest.raises(UnreadableVideoError, match="larger than the 2 MB") as raised,
        local_video("-"),
    ):
        pass
    assert str(temporary) in raised.value.message
    assert "TMPDIR" in raised.value.remedy


@needs_pipes
def test_a_terminal_is_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = pytest.importorskip("pty").openpty()
    with standard_input_from(terminal, monkeypatch), pytest.raises(UsageError, match="a terminal"), local_video("-"):
        pass
    os.close(main)


def test_a_closed_or_odd_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UsageError, match="closed"), local_video("-"):
        pass
    source = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=lambda: source))
    with pytest.raises(UsageError, match="a folder"), local_video("-"):
        pass
    os.close(source)


@needs_signals
def test_ctrl_c_while_waiting_leaves_nothing(temporary: Path) -> None:
    """A pipe nobody writes to, and a user who has had enough."""
    program = (
        "import sys, tempfile; from sfvqa.video.readers.local_file import local_video\n"
        f"tempfile.tempdir = {str(temporary)!r}\n"
        "with local_video('-'): pass"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while not list(temporary.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(temporary.iterdir())
    process.send_signal(2)
    _, errors = process.communicate(timeout=10)
    assert b"KeyboardInterrupt" in errors
