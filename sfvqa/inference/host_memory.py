"""The machine's memory: how much there is and is free, as its system tells, and getting it back; no torch."""

import ctypes
import os
import re
import sys
from pathlib import Path

from sfvqa.inference.cgroup_memory import free_in_groups, total_in_groups

MEMINFO = Path("/proc/meminfo")  # Linux

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BLOCK_BYTES = 2**20
_KEPT_BYTES = 32 * 2**20


def free_host_bytes() -> int | None:
    """Memory a program could still take, in its container too; None where the system does not tell."""
    if MEMINFO.is_file():
        # Not the free pages: those leave out the file cache, which gives way, and holds most of a busy machine.
        return _smaller(_read("MemAvailable"), free_in_groups())
    return _installed()  # macOS tells only how much there is in all, Windows nothing


def total_host_bytes() -> int | None:
    """Memory there is in all, for its container at most; None where the system does not tell."""
    return _smaller(_read("MemTotal"), total_in_groups()) if MEMINFO.is_file() else _installed()


def return_large_blocks() -> None:
    """Have malloc give large blocks back to the system as soon as they are freed, in this process from now on.

    glibc raises the size it calls large to 32 MB as a program goes, and then keeps what tensors of many sizes leave
    between each other: a prompt in 8 bit took 1.6 GB more than its tensors. Nothing happens with another libc.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        set_option(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _smaller(first: int | None, second: int | None) -> int | None:
    return min((size for size in (first, second) if size is not None), default=None)


def _read(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
