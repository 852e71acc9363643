"""A reader in a process of its own, killed when it takes too long or is no longer wanted: both ends of the pipes.

Native code cannot be interrupted, only killed with its process, which also frees what a hostile file made it allocate.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from importlib import import_module
from itertools import count, repeat
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sfvqa.errors import ReaderKilledError, ReadingMemoryError, ReadTimeoutError, SfvqaError, UnreadableVideoError
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import ReadOptions, VideoReader, open_here
from sfvqa.video.readers.local_file import FileState
from sfvqa.video.subtitles import Subtitles
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.video.readers.sound import Samples

# Not `python -m`: the child must import from where this process does, whatever the working directory is by now.
_PROGRAM = "import sys; sys.path[:] = {path!r}; from sfvqa.video.readers.isolated import main; main()"

_STARTING = "it was starting"
_SECONDS_TO_END = 5.0
"""What a process may take to end once it was killed: as good as none, but where a disk or a server does not answer."""
_KILLED = -9  # SIGKILL, which Windows has not
_IF_KILLED = "Most likely the system did so because memory ran out: free some and try again."
_IF_ENDED = "Somebody or something ended it from outside: try again."
_OWN_FAULTS = {
    getattr(signal, name, None) for name in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS")
}
"""Signals that native code brings upon itself; all others come from outside, whatever the file."""
_ENDED_ON_WINDOWS = (_KILLED, 1, signal.SIGTERM)
"""Codes with which tools there, and Python, end a process for want of signals; no fault of native code has them."""
_MEMORY_BYTES = 4 * 1024**3  # that a file may take, beyond what the process has at its start


class ReadingProcess:
    """A process that opens one video at once and then does what it is asked.

    All that it is waited for may take `timeout_seconds`. Raises ReadTimeoutError, and UnreadableVideoError when it
    dies.
    """

    def __init__(self, state: FileState, options: ReadOptions, spare: "SpareProcess | None" = None) -> None:
        """Start it for a checked local file, and do not wait for it; or take the spare one, if that is there."""
        self.path, self._state, self._options, self._spare = state.path, state, options, spare
        self._seconds_left = options.timeout_seconds
        self._is_timed_out = False
        self._running: subprocess.Popen[bytes] | None = None
        self._killed: subprocess.Popen[bytes] | None = None  # by another thread, the last one
        self._start()

    def opened(self) -> Any:
        """Wait until it has opened the file; what its reader says of that."""
        try:
            self._receive(_STARTING)
            return self._receive("opening it")
        except BaseException:
            self.close()
            raise

    def ask(self, stages: Iterable[str], method: str, *arguments: object) -> Generator[Any]:
        """Yield what it answers to a call; `stages` say for each answer what it is waited for.

        Leaving early ends the process. One that has ended is replaced, if the file still is as it was.
        """
        if (running := self._running) is not None and (running is self._killed or running.poll() is not None):
            self.close()
        if self._running is None:
            self._state.check()
            self._start()
            self.opened()
        is_complete = False
        try:
            self._send((method, arguments))
            for stage in stages:
                answer = self._receive(stage)
                if answer is None:
                    is_complete = True
                    return
                yield answer
        finally:
            if not is_complete:
                self.close()

    def allow_time(self) -> None:
        """Let the time that may be waited begin anew."""
        self._seconds_left, self._is_timed_out = self._options.timeout_seconds, False

    def kill(self) -> None:
        """End it, whatever it is doing, while another thread may wait for it; does not wait itself."""
        if (running := self._running) is not None:
            self._killed = running
            running.kill()

    def close(self) -> None:
        """End it; safe to call twice."""
        running, self._running = self._running, None
        if running is not None:
            _close(running)

    def _start(self) -> None:
        self._running = (self._spare and self._spare.take()) or _started()
        try:
            self._send((self.path, self._options))
        except BaseException:
            self.close()
            raise

    def _send(self, request: object) -> None:
        assert self._running is not None
        assert self._running.stdin is not None
        with self._at_pipe("being asked"):
            _send(self._running.stdin, request)

    def _receive(self, stage: str) -> Any:
        """The next answer; raises the error that it is, or that its absence means."""
        assert self._running is not None
        assert self._running.stdout is not None
        with self._at_pipe(stage):
            answer = pickle.load(self._running.stdout)
        if isinstance(answer, SfvqaError):
            raise answer
        return answer

    @contextlib.contextmanager
    def _at_pipe(self, stage: str) -> Iterator[None]:
        """Kill the process where waiting at a pipe takes too long; raises the error for its end."""
        killer = threading.Timer(self._seconds_left, self._time_out)
        killer.daemon = True
        began = time.monotonic()
        killer.start()
        try:
            try:
                yield
            finally:
                killer.cancel()
                self._seconds_left = max(self._seconds_left - (time.monotonic() - began), 0.0)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._death(stage) from error

    def _time_out(self) -> None:
        self._is_timed_out = True
        if self._running is not None:
            self._running.kill()

    def _death(self, stage: str) -> SfvqaError:
        """The error for a process that is gone."""
        if self._is_timed_out:
            return ReadTimeoutError(
                f"“{self.path}” was not read within {plural(self._options.timeout_seconds, 'second')}: "
                f"time ran out while {stage}.",
                "Allow more with --read-timeout, look at a part of it with --start and --end, or convert it.",
            )
        assert self._running is not None
        code = _exit_code(self._running)
        shown = code if code < 1 << 31 else hex(code)  # as Windows' codes of native faults are known: 0xc0000005
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {shown}"
        was_ended = code < 0 and -code not in _OWN_FAULTS
        if os.name == "nt":  # a start that fails ends with 1 as well
            was_ended = stage != _STARTING and code in _ENDED_ON_WINDOWS
        if_ended = _IF_KILLED if code == _KILLED else _IF_ENDED
        if stage == _STARTING:
            return SfvqaError(
                f"The process that reads videos could not be started: it {how}.",
                if_ended if was_ended else "SFVQA_DEBUG=1 shows its output; check that sfvqa is installed completely.",
            )
        what = f"The process that read “{self.path}” {how} while {stage}."
        if was_ended:
            return ReaderKilledError(what, if_ended)
        return UnreadableVideoError(what, "The file may be damaged: convert it, or copy or download it again.")


class SpareProcess:
    """A process that waits for the next video to read, which saves it the start; of several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def make(self) -> None:
        """Start one, unless it is there; where that fails, whoever needs one tries again, and says so."""
        with self._mutex, contextlib.suppress(OSError):
            if self._running is None and not self._is_closed:
                self._running = _started()

    def take(self) -> "subprocess.Popen[bytes] | None":
        """It, if it is there."""
        with self._mutex:
            running, self._running = self._running, None
        if running is not None and (running.args != _command() or running.poll() is not None):
            _close(running)
            return None
        return running

    def close(self) -> None:
        """End it, and make no other."""
        with self._mutex:
            self._is_closed = True
        if (running := self.take()) is not None:
            _close(running)


class IsolatedReader(VideoReader):
    """Reads like the reader it stands for, in another process; raises what that process does."""

    def __init__(self, process: ReadingProcess) -> None:
        """Wait until the process has opened the file."""
        self._process = process
        self.name, *facts = process.opened()
        super().__init__(*facts)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """As the reader's in the process; leaving early ends the process, and the next call starts another."""
        total = len(indices)
        stages = (f"reading frame {min(place, total)} of {total}" for place in count(1))
        return self._process.ask(stages, "pictures", indices, fit)

    def subtitles(self) -> Subtitles:
        """As the reader's in the process."""
        (subtitles,) = self._process.ask(repeat("reading the subtitles"), "subtitles")
        assert isinstance(subtitles, Subtitles)
        return subtitles

    def sound(self) -> "Generator[tuple[float, Samples] | str]":
        """As the reader's in the process; leaving early ends the process, and the next call starts another."""
        return self._process.ask(repeat("reading the sound"), "sound")

    def copy_part(self, target: Path, format: str, start_seconds: float, end_seconds: float) -> float:
        """As the reader's in the process, which writes the file."""
        arguments = target.absolute(), format, start_seconds, end_seconds
        (before,) = self._process.ask(repeat("copying a part of it"), "copy_part", *arguments)
        assert isinstance(before, float)
        return before

    def cancel(self) -> None:
        """End the process, whatever it is doing; the next call starts another."""
        self._process.kill()

    def allow_time(self) -> None:
        """Let the time limit begin anew."""
        self._process.allow_time()

    def close(self) -> None:
        """End the process; safe to call twice."""
        self._process.close()


def _command() -> list[str]:
    return [sys.executable, "-c", _PROGRAM.format(path=[os.fspath(entry) for entry in sys.path])]


def _started() -> "subprocess.Popen[bytes]":
    """A process that waits for a video."""
    is_debugging = os.environ.get("SFVQA_DEBUG", "") not in ("", "0")
    return subprocess.Popen(
        _command(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if is_debugging else subprocess.DEVNULL,
        # A process that is stopped cannot see that its parent is gone; a group whose last tie that was is woken
        # and hung up by the system.
        process_group=0 if os.name == "posix" else None,
    )


def _close(running: "subprocess.Popen[bytes]") -> None:
    running.kill()
    for pipe in (running.stdin, running.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # what was still to be sent to the killed process
            pipe.close()
    _end(running)


def _end(running: "subprocess.Popen[bytes]") -> None:
    """Kill it; one that hangs in the system ends later, and is not waited for."""
    running.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.wait(_SECONDS_TO_END)


def _exit_code(gone: "subprocess.Popen[bytes]") -> int:
    """How a process ended whose pipe did; it may have closed that alone."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        return gone.wait(_SECONDS_TO_END)
    _end(gone)
    return _KILLED


def _send(pipe: IO[bytes], message: object) -> None:
    pickle.dump(message, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    pipe.flush()


# --- In the process ---


def main() -> None:
    """Serve one video until standard input ends, or something fails: requests come in there, answers go out.

    The first request is the arguments of `open_here`, every other one a method's name and arguments. None goes out
    once the process runs, and behind the last answer to each call; an error goes out in place of it, and is the last.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; who started us decides
    # Whatever a library prints must not end up between the messages. And on Windows, a library that looks at standard
    # input while it is loaded, as many do, would wait for the thread that reads the next request: cpython#78961.
    source, messages = os.fdopen(os.dup(sys.stdin.fileno()), "rb"), os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_take_requests, args=(source, requests), daemon=True).start()
    _send(messages, None)
    try:
        for answer in _answers(requests):
            _send(messages, answer)
    except SfvqaError as error:
        failure = error
    except MemoryError:
        what = f"Reading the video takes more than {_MEMORY_BYTES // 1024**3} GiB of memory."
        failure = ReadingMemoryError(what, "Convert it to a smaller picture, or use fewer --read-threads.")
    except Exception as error:  # noqa: BLE001  told at the other end, not here
        what = f"The video made its reader fail: {type(error).__name__}: {' '.join(str(error).split())}."
        failure = UnreadableVideoError(what, "Convert it, for example with FFmpeg.")
    _send(messages, failure)
    os._exit(0)  # an orderly end would wait for the thread, which waits for requests


def _take_requests(source: IO[bytes], requests: "queue.SimpleQueue[Any]") -> None:
    """Queue what comes in; end the process, whatever it is doing, when the other end is gone."""
    while True:
        try:
            requests.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _answers(requests: "queue.SimpleQueue[Any]") -> Iterator[object]:
    if requests.empty():  # it is a spare one: what most videos need can be there when one comes
        import_module("sfvqa.video.readers.pyav")
    path, options = requests.get()
    _limit_memory()
    reader = open_here(path, options)
    yield reader.name, reader.info, reader.timestamps_seconds, reader.key_frames, reader.warnings
    while True:
        method, arguments = requests.get()
        answer = getattr(reader, method)(*arguments)
        yield from answer if isinstance(answer, Generator) else (answer,)
        yield None


def _limit_memory() -> None:
    """Let no file make this process grow without end; where the system cannot do that, nothing happens."""
    if sys.platform != "linux":
        return
    import resource

    loaded_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard_limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = loaded_bytes + _MEMORY_BYTES
    if hard_limit != resource.RLIM_INFINITY:
        limit = min(limit, hard_limit)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
