"""The journal: the file of records, which one process at a time appends to, line by line, and which loses none."""

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Self

from sfvqa.batch.output_file import (
    STANDARD_OUTPUT,
    cannot_be_written,
    is_stream,
    move_aside,
    open_locked,
    open_stream,
    real_path,
    sync_folder,
    write_all,
)
from sfvqa.batch.record import ERROR, OK, Line, check_records, describe_damage, read_lines, to_line
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.errors import JournalError
from sfvqa.wording import plural


class Journal(RecordKeeper):
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
                self._stream: IO[bytes] = open_stream(path)
                return
            self.path = real_path(path)  # what is moved aside or locked is the file, not a link to it
            self._stream = self._open_file(overwrite=overwrite)
        except OSError as error:
            raise cannot_be_written(path, error) from error

    @property
    def remembers(self) -> bool:
        """Whether another run can go on with it: not with a stream."""
        return self._is_file

    @property
    def done(self) -> Mapping[str, str]:
        """The ids of the items that have a record, each with "ok" or "error"."""
        return MappingProxyType(self._done)

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
                    write_all(self._stream, line)
            except OSError as error:
                raise cannot_be_written(self.path, error) from error
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
        stream = open_locked(self.path)
        try:
            if overwrite and os.fstat(stream.fileno()).st_size:
                check_records(stream, str(self.path))  # a manifest, or a video, is nobody's to move away
                self.notices.append(f"The old “{self.path}” is now “{move_aside(self.path)}”.")
                old, stream, is_new = stream, open_locked(self.path, exclusive=True), True
                old.close()
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
                item_id, status = last.record["item_id"], last.record["status"]
                is_answered = self._done.get(item_id) == OK
                num_repeated += is_answered and status == OK
                self._done[item_id] = OK if is_answered else status
        if last is not None:
            unread = self._repair(stream, last, unread)
        self.notices += describe_damage(self.path, unread)
        if num_repeated:
            self.notices.append(
                f"“{self.path}” holds {plural(num_repeated, 'more ok record')} of items that have one already."
            )

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
                f"“{self.path}” was deleted or replaced while it was written to.",
                "Leave it in place while a batch runs, and run the batch again.",
            )
