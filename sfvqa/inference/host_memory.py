"""How much memory the machine has and has free, as its system tells; no torch."""

import os
import re
from pathlib import Path

MEMINFO = Path("/proc/meminfo")  # Linux


def free_host_bytes() -> int | None:
    """Memory a program could still take; None where the system does not tell."""
    if MEMINFO.is_file():
        # Not the free pages: those leave out the file cache, which gives way, and holds most of a busy machine.
        return _read("MemAvailable")
    return _installed()  # macOS tells only how much there is in all, Windows nothing


def total_host_bytes() -> int | None:
    """Memory there is in all; None where the system does not tell."""
    return _read("MemTotal") if MEMINFO.is_file() else _installed()


def _read(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", MEMINFO.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
