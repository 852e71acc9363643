"""Memory that Python freed goes back to the system: malloc keeps blocks below 32 MiB, gigabytes after loading."""

import contextlib
import ctypes
import sys


def return_freed_memory() -> None:
    """Give back what malloc keeps for later, where it can be asked to (glibc); elsewhere nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)
