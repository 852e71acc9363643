"""The machine: total and free memory within a container's limit, returning it, the CPU's instructions. No torch."""

import ctypes
import re
import sys
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")
_VERSIONS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By controller as MEMBERSHIP names it (version 2 names none): a folder below ROOT, and the names of what is read."""


def free_in_groups() -> int | None:
    """Bytes that the tightest control group still allows; None if no group sets a limit.

    Pages of files that nobody uses count as free, as they do for the machine.
    """
    return min([max(limit - used, 0) for limit, used in _limits_and_use()], default=None)


def total_in_groups() -> int | None:
    """Bytes that the tightest control group allows in total; None if no group sets a limit."""
    return min([limit for limit, _ in _limits_and_use()], default=None)


def _limits_and_use() -> list[tuple[int, int]]:
    """Limit and use of every control group with a limit, from the innermost to the root."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in _VERSIONS:
            below, limit_name, use_name, cached_name = _VERSIONS[controllers]
            folder = ROOT / below / path.lstrip("/")
            while folder.is_relative_to(ROOT / below):
                limit, used = _number(folder / limit_name), _number(folder / use_name)
                if limit is not None and used is not None:
                    found.append((limit, used - _stated(folder / "memory.stat", cached_name)))
                folder = folder.parent
    return found


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, as for `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _stated(path: Path, name: str) -> int:
    """The number of a name in a file of names and numbers; 0 if it is missing."""
    try:
        found = re.search(rf"^{name} (\d+)$", path.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, ValueError):
        return 0
    return int(found[1]) if found else 0


MEMINFO = Path("/proc/meminfo")  # Linux
STATUS = Path("/proc/self/status")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def free_host_bytes() -> int | None:
    """Free memory in bytes, respecting a container's limit; None if the system does not report it."""
    if MEMINFO.is_file():
        # Not the free pages: those leave out the file cache, which gives way, and holds most of a busy machine.
        return _smaller(_read("MemAvailable"), free_in_groups())
    import psutil

    return int(psutil.virtual_memory().available)


def peak_host_bytes() -> int | None:
    """Peak of this process's resident memory in bytes, on Linux; None elsewhere.

    What `getrusage` calls so begins with the peak of the process that started this one.
    """
    return _read("VmHWM", STATUS) if STATUS.is_file() else None


def total_host_bytes() -> int | None:
    """Total memory in bytes, respecting a container's limit; None if the system does not report it."""
    if MEMINFO.is_file():
        return _smaller(_read("MemTotal"), total_in_groups())
    import psutil

    return int(psutil.virtual_memory().total)


def return_large_blocks() -> None:
    """Make malloc return blocks of a megabyte to the system as soon as they are freed, in this process from now on.

    While a model is loaded: glibc otherwise keeps what tensors of many sizes leave between each other.
    """
    _set_borders(large_bytes=2**20, kept_bytes=2**25)


def keep_blocks() -> None:
    """Make malloc keep blocks of less than 32 MB for the next, in this process from now on.

    While a model runs: what is returned is cleared, page by page, when it is wanted again, which took as long as a
    prompt and a vision tower themselves.
    """
    _set_borders(large_bytes=2**25, kept_bytes=2**28)


def return_freed_blocks() -> None:
    """Return to the system what malloc keeps for the next, between two stages that want blocks of other sizes."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _set_borders(*, large_bytes: int, kept_bytes: int) -> None:
    """Left to itself, glibc moves both borders as a program goes. Nothing happens with another libc."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, large_bytes)
        set_option(_M_TRIM_THRESHOLD, kept_bytes)


def _smaller(first: int | None, second: int | None) -> int | None:
    return min([size for size in (first, second) if size is not None], default=None)


def _read(name: str, path: Path | None = None) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", (path or MEMINFO).read_text(encoding="utf-8"), re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def computes_in_bfloat16() -> bool:
    """Whether the CPU has instructions for it (AVX512-BF16, AMX, Arm's BF16); without them it is slower than float32.

    False where the system does not say, on macOS and Windows.
    """
    try:
        described = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", described, re.MULTILINE)
    return flags is not None and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags[1].split())
