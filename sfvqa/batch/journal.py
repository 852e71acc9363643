"""The journal: the file of records, which one process at a time appends to, line by line, and which loses none."""

import errno
import os
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

from sfvqa.batch.record import ERROR, OK, Line, describe_damage, read_lines, to_line
from sfvqa.errors import JournalError

STANDARD_OUTPUT = "-"


class Journal:
    """A context manager that holds the lock on the file; the lock goes with the process, however that ends.

    What is in the file stays, but for a torn last line: that is cut off, and `notices` say so. With `overwrite` a file
    that is there is moved aside, to `OUT.jsonl.old`, or `.old.2` and on. Standard output (`-`), pipes and devices are
    written to as well; they remember nothing, so that nothing can be resumed.
    A child made by fork alone, without exec, shares the lock, and holds it as long as it lives.
    Raises JournalError when built, before anything is spent, for a file that is in use, none of records, or read-only.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.notices: list[str] = []
        self._done: dict[str, str] = {}
        self._mutex = threading.Lock()
        self._is_file = not is_stream(path)
        try:
            if not self._is_file:
                self._stream: IO[bytes] = _open_stream(path)
                return
            self.path = path.resolve()  # what is moved aside or locked is the file, not a link to it
            self._stream = self._open_file(overwrite=overwrite)
        except OSError as error:
            raise _cannot_be_written(path, error) from error

    @property
    def done(self) -> Mapping[str, str]:
        """The ids of the items that have a record, each with "ok" or "error"."""
        return MappingProxyType(self._done)

    def is_done(self, item_id: str, *, retry_errors: bool) -> bool:
        """Whether an item needs no asking: it has an answer, or an error that is not to be tried again."""
        status = self._done.get(item_id)
        return status == OK or (status == ERROR and not retry_errors)

    def append(self, record: Mapping[str, object]) -> None:
        """Write a record; when this returns it is on the disk, and if this raises the file is as it was before.

        Raises JournalError when it cannot be written, and ValueError for an item that is answered, or for a record
        that is none.
        """
        item_id, status = record.get("item_id"), record.get("status")
        if not isinstance(item_id, str) or status not in (OK, ERROR):
            raise ValueError(f"a record has an item_id and a status, not {item_id!r} and {status!r}")
        line = to_line(record)
        with self._mutex:
            if self._done.get(item_id) == OK:
                raise ValueError(f"item {item_id} has an ok record already")
            try:
                if self._is_file:
                    self._append_to_file(line)
                else:
                    _write(self._stream, line)
            except OSError as error:
                raise _cannot_be_written(self.path, error) from error
            self._done[item_id] = str(status)

    def close(self) -> None:
        """Give the file and its lock back; of standard output nothing is closed."""
        if str(self.path) != STANDARD_OUTPUT:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open_file(self, *, overwrite: bool) -> IO[bytes]:
        is_new = not self.path.exists()
        stream = _open_locked(self.path)
        try:
            if overwrite and os.fstat(stream.fileno()).st_size:
                self.notices.append(f"The old “{self.path}” is now “{_move_aside(self.path)}”.")
                old, stream, is_new = stream, _open_locked(self.path, exclusive=True), True
                old.close()
            if is_new:
                _sync_folder(self.path.parent)
            self._read(stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def _read(self, stream: IO[bytes]) -> None:
        """Learn what is done, and make every line whole."""
        unread: list[Line] = []
        num_repeated, last = 0, None
        with open(stream.fileno(), "rb", closefd=False) as reading:
            for last in read_lines(reading, str(self.path)):
                if last.record is None:
                    unread += [] if last.is_empty else [last]
                    continue
                item_id, status = last.record["item_id"], last.record["status"]
                is_answered = self._done.get(item_id) == OK
                num_repeated += is_answered and status == OK
                self._done[item_id] = OK if is_answered else status
        if last is not None:
            unread = self._repair(stream, last, unread)
        self.notices += describe_damage(self.path, unread)
        if num_repeated:
            self.notices.append(f"“{self.path}” holds {num_repeated} more ok records of items that have one already.")

    def _repair(self, stream: IO[bytes], last: Line, unread: list[Line]) -> list[Line]:
        """Cut a torn last line off, and return the others that hold no record."""
        if not last.is_torn:
            if not last.is_whole:
                _write(stream, b"\n")
                os.fsync(stream.fileno())
            return unread
        os.ftruncate(stream.fileno(), last.start)
        os.fsync(stream.fileno())
        size = len(last.content)
        self.notices.append(f"The last line of “{self.path}” was torn ({size} bytes of a record), and was cut off.")
        return unread[:-1]

    def _append_to_file(self, line: bytes) -> None:
        descriptor = self._stream.fileno()
        before = os.fstat(descriptor)
        self._check_in_place(before)
        try:
            _write(self._stream, line)
            os.fsync(descriptor)
        except BaseException:  # Ctrl-C too
            os.ftruncate(descriptor, before.st_size)
            raise

    def _check_in_place(self, status: os.stat_result) -> None:
        try:
            is_there = os.path.samestat(self.path.stat(), status)
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise JournalError(
                f"“{self.path}” was deleted or replaced while it was written to.",
                "Leave it in place while a batch runs, and run the batch again.",
            )


def is_stream(path: Path) -> bool:
    """Whether this is standard output, a pipe or a device, of which nothing can be read back."""
    if str(path) == STANDARD_OUTPUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _open_stream(path: Path) -> IO[bytes]:
    if str(path) == STANDARD_OUTPUT:
        return sys.stdout.buffer
    return path.open("wb", buffering=0)


def _open_locked(path: Path, *, exclusive: bool = False) -> IO[bytes]:
    """The file, made if need be, for reading and appending, with its lock. OSError; JournalError if that is taken."""
    from filelock import lock_descriptor

    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (os.O_EXCL if exclusive else 0) | getattr(os, "O_BINARY", 0)
    stream = open(os.open(path, flags, 0o666), "r+b", buffering=0)  # noqa: PTH123, SIM115  a context of the caller's
    try:
        if lock_descriptor(stream.fileno(), blocking=False) and os.path.samestat(
            path.stat(), os.fstat(stream.fileno())
        ):
            return stream
    except BaseException:
        stream.close()
        raise
    stream.close()
    raise JournalError(
        f"Another process is writing to “{path}”.", "Wait until it is done, or write to another file with -o."
    )


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old{f'.{number}' if number > 1 else ''}")).exists():
        number += 1
    return path.rename(aside)


def _write(stream: IO[bytes], data: bytes) -> None:
    """All of it: an unbuffered stream may take less at a time."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # what a pipe says that is full and does not wait
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()


def _sync_folder(folder: Path) -> None:
    """Have the system write down that a file is new there; not every system has folders that can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_be_written(path: Path, error: OSError) -> JournalError:
    if isinstance(error, BrokenPipeError):
        return JournalError("Whoever read the records has gone: the pipe is closed.", "Write them to a file with -o.")
    return JournalError(
        f"“{path}” cannot be written: {error.strerror or error}.",
        "What is in it is kept. See to its folder, permissions and the room on the disk, and run this again.",
    )
