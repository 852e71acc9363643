"""The process's own streams, made safe to write to: closed ones, characters they cannot spell, a stderr that fails."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast


class _Unfailing(io.RawIOBase):
    """Passes bytes on to a stream, and drops what that refuses: a full disk, a reader that has gone.

    Nothing is buffered: a thread that waits for a terminal would hold the buffer's lock, for which the main thread
    waits deaf to Ctrl-C.
    """

    def __init__(self, target: Any) -> None:
        super().__init__()
        self._target = target

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._target.isatty())

    def fileno(self) -> int:
        return int(self._target.fileno())

    def write(self, data: Any) -> int:
        left = memoryview(data)
        with contextlib.suppress(OSError):
            while left:
                left = left[self._target.write(left) or len(left) :]
        return len(data)


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """While this runs a notice that cannot be written costs nothing else, least of all the answer on stdout."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # an answer the terminal cannot spell is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    stderr = sys.stderr
    if isinstance(stderr, io.TextIOWrapper):
        raw = _Unfailing(getattr(stderr.buffer, "raw", stderr.buffer))
        sys.stderr = io.TextIOWrapper(
            cast("BinaryIO", raw), encoding=stderr.encoding, errors="backslashreplace", line_buffering=True
        )
    try:
        yield
    finally:
        sys.stderr.flush()
        sys.stderr = stderr


def _replace_closed_streams() -> None:
    """`>&-` leaves Python without the stream; what is written then goes nowhere, as in any other program."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  for the life of the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
