"""What a profile was measured on: the device's name, threads, versions, and what else the machine was doing."""

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

_CPU_FACTS = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Device:
    """Where the network ran. `load_average` is the machine's own of the last minute, before the first run; None where
    unknown.
    """

    kind: str
    name: str
    num_threads: int
    num_cores: int | None
    load_average: float | None
    torch_version: str
    transformers_version: str
    python_version: str

    @classmethod
    def of(cls, device: torch.device) -> "Device":
        """The facts of now."""
        return cls(
            kind=device.type,
            name=torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
            num_threads=torch.get_num_threads(),
            num_cores=os.cpu_count(),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            torch_version=torch.__version__,
            transformers_version=version("transformers"),
            python_version=platform.python_version(),
        )

    @property
    def title(self) -> str:
        """`NVIDIA H200`, `Intel Xeon, 2 threads`."""
        return (
            self.name
            if self.kind == "cuda"
            else f"{self.name}, {self.num_threads} thread{'' if self.num_threads == 1 else 's'}"
        )

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def _processor() -> str:
    """The processor's own name; Linux alone tells it in a file."""
    try:
        lines = _CPU_FACTS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
