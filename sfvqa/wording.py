"""Counts, sizes and commands in words, for messages of every layer."""

import os
import shlex
from collections.abc import Iterable, Sequence


def plural(count: float, noun: str) -> str:
    """`1 frame`, `2 frames`, `0.5 seconds`."""
    number = f"{count:,}" if isinstance(count, int) else f"{count:,g}"
    return f"{number} {noun}{'' if count == 1 else 's'}"


def readable_size(num_bytes: int) -> str:
    """`3.8 MB`, `17.0 GB`: powers of 1000, as disks are sold."""
    size, units = float(num_bytes), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:,.0f} {units[0]}" if units[0] == "bytes" else f"{size:,.1f} {units[0]}"


def command_line(words: Iterable[object]) -> str:
    """Words as a command to paste into a shell of this system."""
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(map(str, words))
    return shlex.join(map(str, words))


def first_few(names: Sequence[str]) -> str:
    """`a, b, c, d, …`: at most four of them."""
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
