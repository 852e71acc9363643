"""The file that a batch appends its records to: locked, written through to the disk, and resumed by what is in it."""

import contextlib
import errno
import io
import os
import stat
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Self

from sfvqa.batch.item import Question
from sfvqa.batch.record import ERROR, OK, Line, check_records, describe_damage, read_lines, to_line
from sfvqa.errors import JournalError
from sfvqa.wording import plural

STANDARD_OUTPUT = "-"


class RecordKeeper:
    """Knows which items have a record: `done` has "ok" or "error" by id. By itself it keeps no more; see Journal.

    On the workers of a cluster that is enough: their records travel in events, and are kept where those arrive.
    `remembers` says that the next run will know what is done, and `notices` what a user should hear before this one.
    """

    remembers = False

    def __init__(self, done: Mapping[str, str] = MappingProxyType({})) -> None:
        self.done = dict(done)
        self.notices: list[str] = []

    def learn(self, record: Mapping[str, Any]) -> None:
        """Note the item of a record as done; one that has an answer stays answered."""
        if self.done.get(record["item_id"]) != OK:
            self.done[record["item_id"]] = record["status"]

    def sort_out(
        self, questions: Iterable[Question], *, retry_errors: bool
    ) -> tuple[tuple[Question, ...], Counter[str]]:
        """The questions that are left to ask, and how many of the others have which status."""
        left: list[Question] = []
        before: Counter[str] = Counter()
        for question in questions:
            status = self.done.get(question.item_id)
            if status is None or (status == ERROR and retry_errors):
                left.append(question)
            else:
                before[status] += 1
        return tuple(left), before

    def append(self, record: Mapping[str, object]) -> None:
        """Take a record, which is kept elsewhere."""


class Journal(RecordKeeper):
    """A context manager that holds a lock on the file, which goes with the process, however that ends.

    What is in the file stays, but for a torn last line, which is cut off, as `notices` say. With `overwrite` a file
    that exists is moved aside. Standard output (`-`), pipes and devices are written to as well, and cannot be resumed:
    `remembers` is False. A child made by fork alone, without exec, shares the lock, and holds it as long as it lives.
    JournalError for a file that is in use or cannot be written, UsageError for one of something else than records.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        super().__init__()
        self.path = path
        self.remembers = not is_stream(path)
        self._mutex = threading.Lock()
        try:
            if not self.remembers:
                self._stream: IO[bytes] = _open_stream(path)
                return
            self.path = real_path(path)  # the file is moved aside or locked, not a link to it
            self._stream = self._open_file(overwrite=overwrite)
        except OSError as error:
            raise cannot_be_written(path, error) from error

    def append(self, record: Mapping[str, object]) -> None:
        """Write a record. It is on the disk when this returns; if this raises, the file is as it was before.

        JournalError if it cannot be written; ValueError for an item that has an answer, or for what is no record.
        """
        item_id, status = record.get("item_id"), record.get("status")
        if not isinstance(item_id, str) or status not in (OK, ERROR):
            raise ValueError(f"a record has an item_id and a status, not {item_id!r} and {status!r}")
        line = to_line(record)
        with self._mutex:
            if self.done.get(item_id) == OK:
                raise ValueError(f"item {item_id} has an ok record already")
            try:
                if self.remembers:
                    self._append_to_file(line)
                else:
                    write_all(self._stream, line)
            except OSError as error:
                raise cannot_be_written(self.path, error) from error
            self.learn(record)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if str(self.path) != STANDARD_OUTPUT:
            self._stream.close()  # which unlocks it

    def _open_file(self, *, overwrite: bool) -> IO[bytes]:
        is_new = not self.path.exists()
        stream = open_locked(self.path)
        try:
            if overwrite and os.fstat(stream.fileno()).st_size:
                check_records(stream, str(self.path))  # never move a manifest or a video aside
                stream.close()  # Windows renames no file that is open
                self.notices.append(f"The old “{self.path}” is now “{move_aside(self.path)}”.")
                stream, is_new = open_locked(self.path, exclusive=True), True
            if is_new:
                sync_folder(self.path.parent)
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
                num_repeated += self.done.get(last.record["item_id"]) == last.record["status"] == OK
                self.learn(last.record)
        if last is not None:
            unread = self._repair(stream, last, unread)
        self.notices += describe_damage(self.path, unread)
        if num_repeated:
            self.notices.append(f"“{self.path}” repeats {plural(num_repeated, 'answer')} that it holds already.")

    def _repair(self, stream: IO[bytes], last: Line, unread: list[Line]) -> list[Line]:
        """Cut a torn last line off, and return the others that hold no record."""
        if not last.is_torn:
            if not last.is_whole:
                write_all(stream, b"\n")
                os.fsync(stream.fileno())
            return unread
        os.ftruncate(stream.fileno(), last.start)
        os.fsync(stream.fileno())
        self.notices.append(
            f"The last line of “{self.path}” was torn ({plural(last.size_bytes, 'byte')} of a record), and was cut off."
        )
        return unread[:-1]

    def _append_to_file(self, line: bytes) -> None:
        descriptor = self._stream.fileno()
        before = os.fstat(descriptor)
        self._check_in_place(before)
        try:
            write_all(self._stream, line)
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
                f"“{self.path}” was deleted or replaced while it was being written.",
                "Leave it in place while a batch runs, and run the batch again.",
            )


def is_stream(path: Path) -> bool:
    """Whether a path is `-` for a standard stream, a pipe, or a device."""
    if str(path) == STANDARD_OUTPUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def real_path(path: Path) -> Path:
    """Where a link leads, even in a circle or to nothing: opening it reports that."""
    return Path(os.path.realpath(path))


def _open_stream(path: Path) -> IO[bytes]:
    """A pipe, a device, or standard output. OSError, also for a standard output that was closed (`>&-`)."""
    if str(path) == STANDARD_OUTPUT:
        if sys.__stdout__ is None:  # what stands in for it drops what it gets
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sys.stdout.buffer
    return path.open("wb", buffering=0)


def open_locked(path: Path, *, exclusive: bool = False) -> IO[bytes]:
    """Open a file, made if need be, for reading and appending, and lock it. OSError; JournalError if it is locked."""
    from filelock import lock_descriptor

    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | (os.O_EXCL if exclusive else 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags, 0o666)
    stream = (_LockedBeside if os.name == "nt" else io.FileIO)(descriptor, "r+b")
    try:
        locked = stream.open_lock(path) if isinstance(stream, _LockedBeside) else stream
        if lock_descriptor(locked.fileno(), blocking=False) and os.path.samestat(path.stat(), os.fstat(descriptor)):
            return stream
    except BaseException:
        stream.close()
        raise
    stream.close()
    raise JournalError(
        f"Another process is writing to “{path}”.", "Wait until it is done, or write to another file with -o."
    )


class _LockedBeside(io.FileIO):
    """A file for Windows, where nobody else can read one that is locked: a file beside it is, and goes with it."""

    _lock_file: IO[bytes] | None = None

    def open_lock(self, path: Path) -> IO[bytes]:
        """What is to be locked in place of this file, which is at `path`. OSError."""
        self._lock_file = path.with_name(f".{path.name}.lock").open("ab")
        return self._lock_file

    def close(self) -> None:
        """Close both, and remove the other."""
        super().close()
        if self._lock_file is not None:
            self._lock_file.close()
            with contextlib.suppress(OSError):  # another process looks at it, or has it: then it is refused
                Path(self._lock_file.name).unlink(missing_ok=True)


def move_aside(path: Path) -> Path:
    """Rename a file to `NAME.old`, or `NAME.old.2` and on."""
    number = 1
    while (aside := path.with_name(f"{path.name}.old{f'.{number}' if number > 1 else ''}")).exists():
        number += 1
    return path.rename(aside)


def write_all(stream: IO[bytes], data: bytes) -> None:
    """Write all of it: an unbuffered stream may take less at a time."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # what a pipe says that is full and does not wait
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()


def sync_folder(folder: Path) -> None:
    """Have the system store that a file is new in a folder, where folders can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_be_written(path: Path, error: OSError) -> JournalError:
    """The error for a file of records that the system refuses to write."""
    if isinstance(error, BrokenPipeError):
        return JournalError("The reader of the records is gone: the pipe is closed.", "Write them to a file with -o.")
    missing = isinstance(error, FileNotFoundError)
    return JournalError(
        f"“{path}” cannot be written: {error.strerror or error}.",
        f"Make the folder “{real_path(path).parent if path.is_symlink() else path.parent}” first, or write to another."
        if missing
        else "Check its permissions and the free space on the disk, then rerun the command; what is in it is kept.",
    )
