"""The most memory of a while, not of the whole process: on the host where Linux lets the mark be taken back."""

import re
from pathlib import Path

import torch

_MARK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


class PeakMemory:
    """Set back when built; `host_bytes` and `device_bytes` are the peaks since then, None where unknown."""

    def __init__(self, device: torch.device) -> None:
        self._devices = range(torch.cuda.device_count()) if device.type == "cuda" else range(0)
        for index in self._devices:
            torch.cuda.reset_peak_memory_stats(index)
        try:
            _MARK.write_text("5", encoding="ascii")
        except OSError:  # another system, or one that forbids it
            self._knows_host = False
        else:
            self._knows_host = True

    @property
    def device_bytes(self) -> int | None:
        """What torch held at most on all GPUs together; None on other devices."""
        if not self._devices:
            return None
        return sum(torch.cuda.max_memory_allocated(index) for index in self._devices)

    @property
    def host_bytes(self) -> int | None:
        """What was resident at most, weights on the CPU included."""
        if not self._knows_host:
            return None
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
