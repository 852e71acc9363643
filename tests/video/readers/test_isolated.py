"""Reading in a process of its own: the same frames, and an end to whatever hangs, dies or is no longer wanted."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from sfvqa.errors import (
    ReaderKilledError,
    ReadingMemoryError,
    ReadTimeoutError,
    SfvqaError,
    UnreadableVideoError,
    UsageError,
    VideoError,
)
from sfvqa.video import ReaderName, ReadOptions, SamplingOptions, open_video, read_clip, read_clip_progressively
from sfvqa.video.fitting import FitSquare
from sfvqa.video.readers import VideoBeingOpened, isolated
from tests.windows import named_windows, needs_signals

from ..conftest import WriteVideo
from ..videos import Recipe, constant_rate, number_in

RECIPE = Recipe(constant_rate(80), group=20)

# What the child runs instead: the real process, of which one function does something else.
SABOTAGE = """
import sys; sys.path[:] = {{path!r}}
import os, signal, time
from sfvqa.video.readers import isolated as process
from sfvqa.video.readers.pyav import PyAVReader
{what}
process.main()
"""


pytestmark = pytest.mark.usefixtures("no_process_is_left")


@pytest.fixture
def path(video: WriteVideo) -> Path:
    return video("isolated.mp4", RECIPE)


def sabotage(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", SABOTAGE.format(what=what))


@pytest.mark.parametrize("name", [ReaderName.PYAV, ReaderName.OPENCV])
def test_the_process_gives_what_the_reader_gives(path: Path, name: ReaderName) -> None:
    options = SamplingOptions(num_frames=9)
    here = read_clip(path, options, reading=ReadOptions(name, isolated=False), fit=FitSquare(48))
    there = read_clip(path, options, reading=ReadOptions(name), fit=FitSquare(48))
    np.testing.assert_array_equal(there.frames, here.frames)
    assert (there.indices, there.timestamps_seconds, there.video) == (here.indices, here.timestamps_seconds, here.video)
    assert (there.reader, there.warnings, there.missing) == (here.reader, here.warnings, here.missing)


def test_what_is_learned_by_opening_arrives_whole(path: Path) -> None:
    with open_video(path) as there, open_video(path, ReadOptions(isolated=False)) as here:
        assert there.key_frames == here.key_frames == (0, 20, 40, 60)
        assert there.timestamps_seconds == here.timestamps_seconds
        assert there.open_seconds > 0


def test_it_can_be_read_again_also_after_it_was_left_early(path: Path) -> None:
    with open_video(path) as opened:
        assert [number_in(frame.pixels) for frame in opened.read([3, 70])] == [3, 70]
        frames = opened.read([1, 2, 50])
        assert number_in(next(frames).pixels) == 1
        frames.close()  # type: ignore[attr-defined]
        assert [number_in(frame.pixels) for frame in opened.read([5])] == [5]


def test_another_thread_can_end_a_read_that_hangs_and_the_reader_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_video(path) as opened:
        assert number_in(next(iter(opened.read([3]))).pixels) == 3
        opened.close()
        with monkeypatch.context() as patch:
            sabotage(patch, "PyAVReader.pictures = lambda *_: time.sleep(60)")
            began = time.monotonic()
            timer = threading.Timer(2, opened.cancel)
            timer.start()
            with pytest.raises(ReaderKilledError, match=r"ended .* while reading frame 1 of 1"):
                list(opened.read([7]))
            assert time.monotonic() - began < 10
            timer.join()
        assert [number_in(frame.pixels) for frame in opened.read([5])] == [5]


def test_a_reader_that_does_nothing_can_be_cancelled_as_well(path: Path) -> None:
    """A thread may be through with it when it is told to stop."""
    with open_video(path) as opened:
        opened.cancel()
        assert [number_in(frame.pixels) for frame in opened.read([5])] == [5]
        opened.close()
        opened.cancel()


def test_errors_cross_over_with_their_type_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_bytes(b"\0Dear reader" * 100)
    with pytest.raises(UnreadableVideoError, match="cannot be read as a video") as raised:
        read_clip(path)
    assert raised.value.remedy.startswith("Check that it is a video file")


@pytest.mark.parametrize(
    ("what", "stage"),
    [
        ("PyAVReader._prepare = lambda reader: time.sleep(60)", "opening it"),
        ("PyAVReader.pictures = lambda reader, indices, fit: time.sleep(60)", "reading frame 1 of 5"),
    ],
)
def test_what_hangs_is_ended_and_the_stage_is_named(
    path: Path, monkeypatch: pytest.MonkeyPatch, what: str, stage: str
) -> None:
    sabotage(monkeypatch, what)
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError, match=stage) as raised:
        read_clip(path, SamplingOptions(num_frames=5), reading=ReadOptions(timeout_seconds=2))
    assert time.monotonic() - began < 10
    assert "isolated.mp4" in raised.value.message
    assert "--read-timeout" in raised.value.remedy
    assert raised.value.exit_code == 3


def test_native_code_that_never_returns_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a decoder that loops does: it holds Python's lock, so no thread of that process can do anything."""
    forever = "import ctypes\nPyAVReader._prepare = lambda reader: ctypes.PyDLL(None).pause()"
    sabotage(monkeypatch, forever)
    with pytest.raises(ReadTimeoutError):
        read_clip(path, reading=ReadOptions(timeout_seconds=2))


def test_time_that_the_caller_takes_is_not_the_readers(path: Path) -> None:
    with open_video(path, ReadOptions(timeout_seconds=4)) as opened:
        seen = []
        for frame in opened.read([0, 20, 40]):
            seen.append(number_in(frame.pixels))
            time.sleep(1.5)
    assert seen == [0, 20, 40]


@needs_signals
def test_a_process_that_dies_is_an_error_that_says_how(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "PyAVReader._prepare = lambda reader: os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(UnreadableVideoError, match="ended by signal 11 while opening it"):
        read_clip(path)


@needs_signals
@pytest.mark.parametrize(
    ("name", "number", "remedy"), [("SIGKILL", 9, "memory ran out"), ("SIGTERM", 15, "from outside")]
)
def test_a_process_that_is_ended_is_not_blamed_on_the_video(
    path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, remedy: str
) -> None:
    """No file sends such signals: the system does where memory runs out, or somebody who tidies up."""
    sabotage(monkeypatch, f"PyAVReader._prepare = lambda reader: os.kill(os.getpid(), signal.{name})")
    with pytest.raises(ReaderKilledError, match=f"ended by signal {number} while opening it") as raised:
        read_clip(path)
    assert remedy in raised.value.remedy
    assert "damaged" not in raised.value.remedy


@pytest.mark.parametrize("code", [1, 15])
def test_a_process_that_windows_tools_end_is_not_blamed_on_the_video(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """There is no signal there: the task manager, taskkill, and Python end a process with a code."""
    named_windows(monkeypatch, isolated)
    sabotage(monkeypatch, f"PyAVReader._prepare = lambda reader: os._exit({code})")
    with pytest.raises(ReaderKilledError, match=f"ended with code {code} while opening it") as raised:
        read_clip(path)
    assert "from outside" in raised.value.remedy


def test_faults_of_native_code_are_the_videos_on_windows_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named_windows(monkeypatch, isolated)
    monkeypatch.setattr(isolated, "_exit_code", lambda _: 0xC0000005)
    sabotage(monkeypatch, "PyAVReader._prepare = lambda reader: os._exit(3)")
    with pytest.raises(UnreadableVideoError, match="ended with code 0xc0000005 while opening it") as raised:
        read_clip(path)
    assert "damaged" in raised.value.remedy
    monkeypatch.setattr(isolated, "_exit_code", lambda _: 1)
    monkeypatch.setattr(isolated, "_PROGRAM", "import nothing_of_that_name  # {path!r}")
    with pytest.raises(SfvqaError, match=r"could not be started: it ended with code 1.*installed completely"):
        read_clip(path)


def test_a_spare_process_reads_the_next_video(path: Path) -> None:
    with contextlib.closing(isolated.SpareProcess()) as spare:
        spare.make()
        waiting = spare._running
        assert waiting is not None
        with contextlib.closing(VideoBeingOpened(path, spare=spare)) as opening, opening.reader() as reader:
            assert reader._process._running is waiting  # type: ignore[attr-defined]
            assert [number_in(frame.pixels) for frame in reader.read([5])] == [5]
        assert read_clip(path, SamplingOptions(num_frames=3)).frames.shape[0] == 3


def test_a_spare_process_that_has_ended_is_not_taken(path: Path) -> None:
    with contextlib.closing(isolated.SpareProcess()) as spare:
        spare.make()
        assert spare._running is not None
        spare._running.kill()
        spare._running.wait()
        with contextlib.closing(VideoBeingOpened(path, spare=spare)) as opening, opening.reader() as reader:
            assert [number_in(frame.pixels) for frame in reader.read([5])] == [5]


def test_no_spare_process_is_left() -> None:
    spare = isolated.SpareProcess()
    spare.make()
    process = spare._running
    assert process is not None
    spare.close()
    spare.make()
    assert process.poll() is not None
    assert spare._running is None


def test_a_process_that_cannot_start_is_not_blamed_on_the_video(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", "import nothing_of_that_name  # {path!r}")
    with pytest.raises(SfvqaError, match="could not be started") as raised:
        read_clip(path)
    assert not isinstance(raised.value, VideoError)


def test_a_search_path_may_hold_paths(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, path.parent])
    assert read_clip(path, SamplingOptions(num_frames=2)).indices == (0, 79)


def test_an_unforeseen_error_is_a_sentence(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "PyAVReader._prepare = lambda reader: 1 / 0")
    with pytest.raises(UnreadableVideoError, match=r"ZeroDivisionError: division by zero\."):
        read_clip(path)


def test_what_libraries_print_does_not_come_between(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    noisy = (
        "prepare = PyAVReader._prepare\nPyAVReader._prepare = lambda reader: [os.write(1, b'hello'), prepare(reader)]"
    )
    sabotage(monkeypatch, noisy)
    assert read_clip(path, SamplingOptions(num_frames=2)).indices == (0, 79)
    assert capfd.readouterr() == ("", "")


def test_nothing_that_a_library_does_with_standard_input_meets_the_requests(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Windows merely looking at it, as DLLs do that are loaded, waits for whoever reads it: no video would open."""
    curious = (
        "prepare = PyAVReader._prepare\n"
        "PyAVReader._prepare = lambda reader: prepare(reader) if os.read(0, 1) == b'' else 1 / 0"
    )
    sabotage(monkeypatch, curious)
    with open_video(path, ReadOptions(timeout_seconds=20)) as opened:
        assert [number_in(frame.pixels) for frame in opened.read([5])] == [5]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_file_that_takes_all_memory_ends_in_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sabotage(monkeypatch, "import numpy\nPyAVReader._prepare = lambda reader: numpy.ones(2**30)")
    with pytest.raises(ReadingMemoryError, match="more than 4 GiB"):
        read_clip(path)


def test_leaving_early_ends_the_process(path: Path) -> None:
    steps = read_clip_progressively(path)
    next(steps)
    assert next(steps).done == 1
    steps.close()  # no_process_is_left says the rest


@needs_signals
@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_the_process_does_not_outlive_the_one_it_works_for(
    path: Path, tmp_path: Path, name: str, is_stopped: bool
) -> None:
    """Even while it hangs, and even if nobody could tell it; one that was stopped lived on for ever."""
    hanging = tmp_path / "hanging"
    hang = f"PyAVReader._prepare = lambda reader: (open({str(hanging)!r}, 'w').close(), time.sleep(60))"
    program = f"""
import sys; sys.path[:] = {sys.path!r}
from sfvqa.video import open_video
from sfvqa.video.readers import isolated
isolated._PROGRAM = {SABOTAGE.format(what=hang)!r}
open_video({str(path)!r})
"""
    parent = subprocess.Popen([sys.executable, "-c", program])
    child = _wait_for_child(parent.pid)
    while not hanging.exists():  # stopped before that, it could not yet have asked for its end
        time.sleep(0.05)
    if is_stopped:
        os.kill(child, signal.SIGSTOP)
        # The system hangs a group up only if all threads of it stand still when the parent goes.
        while {
            stat.read_text("ascii").rpartition(") ")[2][0] for stat in Path(f"/proc/{child}/task").glob("*/stat")
        } != {"T"}:
            time.sleep(0.05)
        time.sleep(0.1)
    parent.send_signal(getattr(signal, name))
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{child}").exists():
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@needs_signals
def test_a_process_that_takes_no_requests_is_ended(path: Path) -> None:
    """What it is asked is more than a pipe holds, and it is stopped: the time-out was for its answers alone."""
    with open_video(path, ReadOptions(timeout_seconds=3)) as opened:
        assert isinstance(opened, isolated.IsolatedReader)
        assert opened._process._running is not None
        os.kill(opened._process._running.pid, signal.SIGSTOP)
        with pytest.raises(ReadTimeoutError, match="time ran out while being asked"):
            list(opened.pictures(list(range(10**6)), FitSquare(48)))


def test_a_process_that_only_closes_its_pipe_is_ended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As native code may that closes what is not its own: the end of the process never came."""
    monkeypatch.setattr(isolated, "_SECONDS_TO_END", 0.5)
    sabotage(monkeypatch, "PyAVReader._prepare = lambda reader: (os.closerange(0, 20), time.sleep(60))")
    with pytest.raises(UnreadableVideoError, match="while opening it"):
        read_clip(path)


@pytest.mark.parametrize(
    "options",
    [{"num_threads": 0}, {"timeout_seconds": 0}, {"timeout_seconds": float("nan")}, {"timeout_seconds": 1e12}],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        ReadOptions(**options)  # type: ignore[arg-type]


def _wait_for_child(parent: int) -> int:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := psutil.Process(parent).children():
            return int(found[0].pid)
        time.sleep(0.05)
    raise AssertionError("no process was started")


@needs_signals
@pytest.mark.parametrize("what", ["time.sleep(60)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_subtitles_that_hang_or_kill_end_alike(path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A hostile text track is FFmpeg's to decode, as a picture is."""
    sabotage(monkeypatch, f"PyAVReader.subtitles = lambda self: {what}")
    with (
        open_video(path, ReadOptions(timeout_seconds=4)) as opened,
        pytest.raises(UnreadableVideoError, match="reading the subtitles"),
    ):
        opened.subtitles()


def test_the_time_limit_can_begin_anew(video: WriteVideo) -> None:
    """Of a recording that is read window by window the whole was to be read within the time of one."""
    with open_video(video("limit.mp4", Recipe(constant_rate(30)))) as reader:
        assert isinstance(reader, isolated.IsolatedReader)
        reader._process._seconds_left = 0.0
        with pytest.raises(ReadTimeoutError):
            list(reader.read([0, 10]))
        reader.allow_time()
        assert [frame.index for frame in reader.read([0, 10])] == [0, 10]


def test_a_spare_process_that_cannot_be_started_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that reads video after video had ended with it, and with all threads every later request hung."""

    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(isolated, "_started", fail)
    spare = isolated.SpareProcess()
    spare.make()
    assert spare.take() is None
