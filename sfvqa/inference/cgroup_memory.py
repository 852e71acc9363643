"""What the control groups this process is in leave it of the machine's memory: a container's limit, a job's. Linux."""

from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
ROOT = Path("/sys/fs/cgroup")
_VERSIONS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""By controller as MEMBERSHIP names it (version 2 names none): a folder below ROOT, and the names of what is read."""


def free_in_groups() -> int | None:
    """Bytes that the tightest of the groups still allows; None where no group sets a limit.

    Pages of files that nobody uses count as free, as they do for the machine.
    """
    return min((max(limit - used, 0) for limit, used in _limits_and_use()), default=None)


def total_in_groups() -> int | None:
    """Bytes that the tightest of the groups allows in all; None where no group sets a limit."""
    return min((limit for limit, _ in _limits_and_use()), default=None)


def _limits_and_use() -> list[tuple[int, int]]:
    found = []
    for folder, limit_name, use_name, cached_name in _groups():
        limit, used = _number(folder / limit_name), _number(folder / use_name)
        if limit is not None and used is not None:
            found.append((limit, used - _stated(folder / "memory.stat", cached_name)))
    return found


def _groups() -> list[tuple[Path, str, str, str]]:
    """The folders of every group with a say, from the innermost to the root, and what the files in them are called."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    groups = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in _VERSIONS:
            below, *names = _VERSIONS[controllers]
            innermost = ROOT / below / path.lstrip("/")
            folders = [innermost, *(parent for parent in innermost.parents if parent.is_relative_to(ROOT / below))]
            groups += [(folder, names[0], names[1], names[2]) for folder in folders]
    return groups


def _number(path: Path) -> int | None:
    """The number in a file; None for none at all, and for `max`."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _stated(path: Path, name: str) -> int:
    """The number after a name in a file of a name and a number a line; 0 where it is not there."""
    try:
        rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
        return next((int(value) for key, value in rows if key == name), 0)
    except (OSError, ValueError):
        return 0
