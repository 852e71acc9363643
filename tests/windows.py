"""What Windows does to files, for tests on other systems; and what it has not, for tests that need it."""

import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import filelock
import pytest

_DESCRIPTORS = Path("/proc/self/fd")


def _needs(what: str, *, is_there: bool = os.name != "nt") -> pytest.MarkDecorator:
    return pytest.mark.skipif(not is_there, reason=f"needs {what}")


def _can_link() -> bool:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(OSError):
        Path(folder, "link").symlink_to(folder)
        return True
    return False


needs_links = _needs("symbolic links, which on Windows need rights", is_there=_can_link())
needs_limits = _needs("limits of a process, and what it has used")
needs_modes = _needs("modes of files, and folders that root alone may write to")
needs_names = _needs("names of files that Windows forbids")
needs_pipes = _needs("named pipes and devices in folders, and pipes that can be waited for")
needs_signals = _needs("signals, and a POSIX shell")
needs_sockets = _needs("Unix sockets")


def as_on_windows(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """From now on a file that this process has open stays where it is, and so do the folders that it is in.

    What is in one that it has locked is read by nobody else: in this process, by no Path that opens it once more.
    These modules are told that the system is Windows.
    """
    if not _DESCRIPTORS.is_dir():
        pytest.skip("nothing tells which files are open")
    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, _refusing(getattr(os, name)))
    locked: set[tuple[int, int]] = set()
    lock, open_file = filelock.lock_descriptor, io.open

    def locking(file: int, **options: Any) -> bool:
        is_ours = lock(file, **options)
        if is_ours:
            locked.add(_identity(os.fstat(file)))
        return is_ours

    def opening(path: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if isinstance(path, int) or mode not in ("r", "rb") or not _is_locked(Path(path), locked):
            return open_file(path, mode, *args, **options)
        unreadable = io.BufferedReader(_Unreadable(path))
        return unreadable if mode == "rb" else io.TextIOWrapper(unreadable, encoding="utf-8")

    monkeypatch.setattr(filelock, "lock_descriptor", locking)
    monkeypatch.setattr(io, "open", opening)
    named_windows(monkeypatch, *modules)


def named_windows(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> None:
    """Have these modules find that the system is Windows; of all, pathlib would make paths that work there alone."""
    for module in modules:
        monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), "name": "nt"}))


class _Unreadable(io.FileIO):
    def readinto(self, _: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    def readall(self) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_locked(path: Path, locked: set[tuple[int, int]]) -> bool:
    return path.exists() and _identity(path.stat()) in locked and _is_open(path)


def _refusing(change: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*paths: Any, **options: Any) -> Any:
        for path in paths:
            if _is_open(path, options.get("dir_fd")):
                raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", str(path))
        return change(*paths, **options)

    return changed


def _is_open(path: Any, folder: int | None = None) -> bool:
    beside = Path.cwd() if folder is None else (_DESCRIPTORS / str(folder)).readlink()
    full = beside / os.fsdecode(path)
    full = full.parent.resolve() / full.name
    return any(_leads_to(link, full) for link in _DESCRIPTORS.iterdir())


def _leads_to(link: Path, path: Path) -> bool:
    try:
        target = link.readlink()
    except OSError:  # the folder of descriptors, while it is read
        return False
    return target.is_relative_to(path) and not target.is_dir()
