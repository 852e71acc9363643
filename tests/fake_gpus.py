"""A machine with NVIDIA GPUs, as torch would describe it, where there is none."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sfvqa.checkpoints import gpus


@dataclass
class FakeGpus:
    """GPUs with `free` bytes each of `total_bytes`; `fractions` are what the process is held to, by number."""

    free: list[int]
    total_bytes: int
    fractions: dict[int, float] = field(default_factory=dict)
    reserved_bytes: int = 0


def pretend_gpus(
    monkeypatch: pytest.MonkeyPatch,
    *free: float,
    total: float = 80e9,
    capability: tuple[int, int] = (9, 0),
    compiled_for: str = "sm_75 sm_80 sm_90 compute_90",
) -> FakeGpus:
    """Let torch find a GPU for each number of free bytes."""
    machine = FakeGpus(list(map(int, free)), int(total))

    def number(device: int | str | torch.device) -> int:
        return device if isinstance(device, int) else torch.device(device).index or 0

    def fraction_of(device: int | torch.device | None) -> float:
        if isinstance(device, torch.device) and device.index is None:
            raise ValueError(f"Expected a torch.device with a specified index, but got: {device}")  # as torch
        return machine.fractions.get(0 if device is None else number(device), 1.0)

    def hold(fraction: float, device: int) -> None:
        machine.fractions[number(device)] = fraction

    for name, answer in {
        "is_available": lambda: True,
        "device_count": lambda: len(machine.free),
        "mem_get_info": lambda device: (machine.free[number(device)], machine.total_bytes),
        "memory_reserved": lambda _: machine.reserved_bytes,
        "get_per_process_memory_fraction": fraction_of,
        "set_per_process_memory_fraction": hold,
        "get_device_capability": lambda _: capability,
        "get_device_properties": lambda _: SimpleNamespace(total_memory=machine.total_bytes),
        "get_device_name": lambda _: "Some GPU",
        "get_arch_list": compiled_for.split,
    }.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return machine


def pretend_unused_gpu(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *, build: str | None, says: str = "", device_file: bool = True
) -> None:
    """A GPU is here, and torch, of a `build` for some CUDA or for none, finds no device; initialising `says` why."""

    def init() -> None:
        raise RuntimeError(says)

    (folder / "driver").mkdir()
    (folder / "dev").mkdir()
    if device_file:
        (folder / "dev" / "nvidia0").touch()
    else:  # as before something first opens the GPU
        (folder / "driver" / "0000:01:00.0").touch()
        (folder / "nvidia-smi").touch(mode=0o755)
        monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(gpus, "DEVICE_FILES", folder / "dev")
    monkeypatch.setattr(gpus, "DRIVER_FILES", folder / "driver")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
