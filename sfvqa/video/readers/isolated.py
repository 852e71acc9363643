"""A reader that works in a process of its own, which is killed when it takes too long or is no longer wanted."""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

from sfvqa.errors import ReadTimeoutError, SfvqaError, UnreadableVideoError
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import reading_process as process
from sfvqa.video.readers.interface import ReadOptions, VideoReader
from sfvqa.video.readers.local_file import FileState
from sfvqa.video.subtitles import Subtitles
from sfvqa.wording import plural

# Not `python -m`: the child must import from where this process does, whatever the working directory is by now.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from sfvqa.video.readers.reading_process import main; main()"

_STARTING = "it was starting"
_SECONDS_TO_END = 5.0
"""What a process may take to end once it was killed: as good as none, but where a disk or a server does not answer."""
_KILLED = -9  # SIGKILL, which Windows has not
_IF_KILLED = "Most likely the system did so because memory ran out: free some, and try again."


class IsolatedReader(VideoReader):
    """Reads like the reader it stands for, in another process, within `timeout_seconds` of waiting from opening on.

    Raises ReadTimeoutError, and UnreadableVideoError when the process dies.
    """

    def __init__(self, path: Path, options: ReadOptions) -> None:
        """Start the process and wait until it has opened a checked local file."""
        self._path = path
        self._state = FileState.of(path)
        self._options = options
        self._seconds_left = options.timeout_seconds
        self._is_timed_out = False
        self._process: subprocess.Popen[bytes] | None = None
        opened = self._start()
        self.name = opened.name
        super().__init__(opened.info, opened.timestamps_seconds, opened.key_frames, opened.warnings)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """As the reader's in the process; leaving early ends the process, and the next call starts another."""
        self._ensure_running()
        is_complete = False
        try:
            self._send(process.ReadRequest(indices, fit))
            done = 0
            while True:
                stage = f"reading frame {min(done + 1, len(indices))} of {len(indices)}"
                message = self._receive(stage)
                if message is process.Signal.FINISHED:
                    is_complete = True
                    return
                assert isinstance(message, tuple)
                done += 1
                yield message
        finally:
            if not is_complete:
                self.close()

    def subtitles(self) -> Subtitles:
        """As the reader's in the process."""
        self._ensure_running()
        try:
            self._send(process.Signal.READ_SUBTITLES)
            subtitles = self._receive("reading the subtitles")
        except BaseException:
            self.close()
            raise
        assert isinstance(subtitles, Subtitles)
        return subtitles

    def cancel(self) -> None:
        """End the process, whatever it is doing; the next call starts another."""
        if (running := self._process) is not None:
            _end(running)

    def close(self) -> None:
        """End the process; safe to call twice."""
        running, self._process = self._process, None
        if running is None:
            return
        running.kill()
        for pipe in (running.stdin, running.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was still to be sent to the killed process
                pipe.close()
        _end(running)

    def _ensure_running(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            self._state.check()
            self._start()

    def _start(self) -> process.Opened:
        is_debugging = os.environ.get("SFVQA_DEBUG", "") not in ("", "0")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM.format(path=[os.fspath(entry) for entry in sys.path])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if is_debugging else subprocess.DEVNULL,
            # A process that is stopped cannot see that its parent is gone; a group whose last tie that was is woken
            # and hung up by the system.
            process_group=0 if os.name == "posix" else None,
        )
        try:
            self._send(process.OpenRequest(str(self._path), self._options))
            started = self._receive(_STARTING)
            assert started is process.Signal.STARTED
            opened = self._receive("opening it")
        except BaseException:
            self.close()
            raise
        assert isinstance(opened, process.Opened)
        return opened

    def _send(self, request: object) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._in_time():
                pickle.dump(request, self._process.stdin)
                self._process.stdin.flush()
        except OSError as error:
            raise self._death("being asked") from error

    def _receive(self, stage: str) -> object:
        """The next message; raises the error that it holds, or that its absence means."""
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            with self._in_time():
                message: object = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._death(stage) from error
        if isinstance(message, process.Failed):
            raise message.error
        return message

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """Wait for the process at one of its pipes for no longer than it may take: killed, it leaves them."""
        killer = threading.Timer(self._seconds_left, self._time_out)
        killer.daemon = True
        began = time.monotonic()
        killer.start()
        try:
            yield
        finally:
            killer.cancel()
            self._seconds_left = max(self._seconds_left - (time.monotonic() - began), 0.0)

    def _time_out(self) -> None:
        self._is_timed_out = True
        if self._process is not None:
            self._process.kill()

    def _death(self, stage: str) -> SfvqaError:
        """The error for a process that is gone."""
        if self._is_timed_out:
            return ReadTimeoutError(
                f"“{self._path}” was not read within {plural(self._options.timeout_seconds, 'second')}: "
                f"time ran out while {stage}.",
                "Allow more with --read-timeout, look at a part of it with --start and --end, or convert it.",
            )
        assert self._process is not None
        code = _exit_code(self._process)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        was_killed = code == _KILLED  # from outside: no file does that
        if stage == _STARTING:
            return SfvqaError(
                f"The process that reads videos could not be started: it {how}.",
                _IF_KILLED if was_killed else "SFVQA_DEBUG=1 shows what it says; check that sfvqa is installed whole.",
            )
        return UnreadableVideoError(
            f"The process that read “{self._path}” {how} while {stage}.",
            _IF_KILLED if was_killed else "The file may be damaged: convert it, or copy or download it again.",
        )


def _end(running: "subprocess.Popen[bytes]") -> None:
    """Kill it; one that hangs in the system ends later, and is not waited for."""
    running.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(_SECONDS_TO_END)


def _exit_code(gone: "subprocess.Popen[bytes]") -> int:
    """How a process ended whose pipe did; it may have closed that alone."""
    try:
        return gone.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        _end(gone)
        return _KILLED
