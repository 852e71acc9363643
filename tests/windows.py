"""What Windows does to files, for tests on other systems: nobody renames, replaces or removes one that is open."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_DESCRIPTORS = Path("/proc/self/fd")


def keep_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a file that this process has open stays where it is, and so do the folders that it is in."""
    if not _DESCRIPTORS.is_dir():
        pytest.skip("nothing tells which files are open")
    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        monkeypatch.setattr(os, name, _refusing(getattr(os, name)))


def _refusing(change: Callable[..., Any]) -> Callable[..., Any]:
    def changed(*paths: Any, **options: Any) -> Any:
        for path in paths:
            if _is_open(path, options.get("dir_fd")):
                raise PermissionError(errno.EACCES, "The process cannot access the file: it is being used", str(path))
        return change(*paths, **options)

    return changed


def _is_open(path: Any, folder: int | None) -> bool:
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
