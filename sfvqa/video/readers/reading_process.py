"""The process that a video is read in: takes requests on standard input, gives messages on standard output.

Native code cannot be interrupted, only killed with its process, which also frees what a hostile file made it allocate.
IsolatedReader is the other end.
"""

import os
import pickle
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from sfvqa.errors import ReadingMemoryError, SfvqaError, UnreadableVideoError
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import ReadOptions, VideoReader, open_here
from sfvqa.video.readers.interface import ReaderName

_MEMORY_BYTES = 4 * 1024**3  # beyond what is taken at the start


@dataclass(frozen=True)
class OpenRequest:
    """Open a video, once, before anything else."""

    path: str
    options: ReadOptions


@dataclass(frozen=True)
class ReadRequest:
    """Read frames; answered by their pictures, then FINISHED."""

    indices: list[int]
    fit: Fit


class Signal(Enum):
    """Messages that carry nothing."""

    STARTED = auto()  # the process runs: comes first, unasked
    FINISHED = auto()  # all pictures of a ReadRequest have been sent
    READ_SUBTITLES = auto()  # a request for the file's own text track, answered by its Subtitles


@dataclass(frozen=True)
class Opened:
    """What the reader found out when it opened the file."""

    name: ReaderName
    info: VideoInfo
    timestamps_seconds: tuple[float, ...]
    key_frames: tuple[int, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Failed:
    """The request led to an error."""

    error: SfvqaError


def main() -> None:
    """Serve one video until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; who started us decides
    # Whatever a library prints must not end up between the messages.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    requests: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    _send(messages, Signal.STARTED)
    _serve(requests, messages)


def _receive(source: BinaryIO, requests: "queue.SimpleQueue[object]") -> None:
    """Queue what comes in; end the process, whatever it is doing, when the other end is gone."""
    while True:
        try:
            requests.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _serve(requests: "queue.SimpleQueue[object]", messages: BinaryIO) -> None:
    reader: VideoReader | None = None
    while True:
        request = requests.get()
        try:
            if isinstance(request, OpenRequest):
                _limit_memory()
                reader = open_here(request.path, request.options)
                answer: object = Opened(
                    reader.name, reader.info, reader.timestamps_seconds, reader.key_frames, reader.warnings
                )
            elif request is Signal.READ_SUBTITLES:
                assert reader is not None
                answer = reader.subtitles()
            else:
                assert isinstance(request, ReadRequest)
                assert reader is not None
                for picture in reader.pictures(request.indices, request.fit):
                    _send(messages, picture)
                answer = Signal.FINISHED
        except SfvqaError as error:
            answer = Failed(error)
        except MemoryError:
            what = f"Reading the video takes more than {_MEMORY_BYTES // 1024**3} GiB of memory."
            remedy = "Convert it to a smaller picture, or use fewer --read-threads."
            answer = Failed(ReadingMemoryError(what, remedy))
        except Exception as error:  # noqa: BLE001  told at the other end, not here
            what = f"The video made its reader fail: {type(error).__name__}: {' '.join(str(error).split())}."
            answer = Failed(UnreadableVideoError(what, "Convert it, for example with FFmpeg."))
        _send(messages, answer)


def _send(messages: BinaryIO, message: object) -> None:
    pickle.dump(message, messages, protocol=pickle.HIGHEST_PROTOCOL)
    messages.flush()


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
