"""A file that records go to: opened, locked, moved aside, written whole; what it holds is for others to know."""

import errno
import os
import stat
import sys
from pathlib import Path
from typing import IO

from sfvqa.errors import JournalError

STANDARD_OUTPUT = "-"


def is_stream(path: Path) -> bool:
    """Whether a path is no file: `-` for a standard stream, a pipe, or a device."""
    if str(path) == STANDARD_OUTPUT:
        return True
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def real_path(path: Path) -> Path:
    """Where a link leads, also in a circle or to nothing: opening says so then."""
    return Path(os.path.realpath(path))


def open_stream(path: Path) -> IO[bytes]:
    """A pipe, a device, or standard output. OSError, also for a standard output that was closed (`>&-`)."""
    if str(path) == STANDARD_OUTPUT:
        if sys.__stdout__ is None:  # what stands in for it drops what it gets
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return sys.stdout.buffer
    return path.open("wb", buffering=0)


def open_locked(path: Path, *, exclusive: bool = False) -> IO[bytes]:
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


def move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.old{f'.{number}' if number > 1 else ''}")).exists():
        number += 1
    return path.rename(aside)


def write_all(stream: IO[bytes], data: bytes) -> None:
    """All of it: an unbuffered stream may take less at a time."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:  # what a pipe says that is full and does not wait
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left = left[written:]
    stream.flush()


def sync_folder(folder: Path) -> None:
    """Have the system write down that a file is new there; not every system has folders that can be opened."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cannot_be_written(path: Path, error: OSError) -> JournalError:
    if isinstance(error, BrokenPipeError):
        return JournalError("Whoever read the records has gone: the pipe is closed.", "Write them to a file with -o.")
    missing = isinstance(error, FileNotFoundError)
    return JournalError(
        f"“{path}” cannot be written: {error.strerror or error}.",
        f"Make the folder “{real_path(path).parent if path.is_symlink() else path.parent}” first, or write to another."
        if missing
        else "See to its permissions and to the room on the disk, and run this again; what is in it is kept.",
    )
