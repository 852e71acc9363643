"""Devices that are not there, memory that runs out, and what is left of it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints import host
from sfvqa.checkpoints.device import (
    free_memory_bytes,
    is_device_lost,
    is_here,
    memory_errors,
    peak_memory_bytes,
    resolve_device,
)
from sfvqa.errors import ExitCode, OutOfMemoryError, UsageError
from sfvqa.inference.stopwatch import Stopwatch

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_prefers_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device("auto") == torch.device(expected)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=name[:4]):
        resolve_device(name)


def test_a_gpu_beyond_the_last_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", list)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="There is no cuda:2, only 2 CUDA devices"):
        resolve_device("cuda:2")
    assert not is_here(torch.device("cuda:2")), "a plan for it asks the device nothing"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        torch.AcceleratorError("CUDA error: out of memory"),
    ],
)
def test_running_out_of_memory_says_while_doing_what(error: Exception) -> None:
    with (
        pytest.raises(OutOfMemoryError, match="while encoding the frames") as caught,
        memory_errors("encoding the frames"),
    ):
        raise error
    assert caught.value.exit_code == ExitCode.OUT_OF_MEMORY
    assert not is_device_lost(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
    ],
)
def test_a_failed_gpu_is_no_lack_of_memory(error: Exception) -> None:
    assert is_device_lost(error)
    with pytest.raises(type(error)), memory_errors("trying"):
        raise error


def test_a_real_allocation_that_is_too_large_is_out_of_memory() -> None:
    with pytest.raises(OutOfMemoryError), memory_errors("trying"):
        torch.empty(2**60, dtype=torch.uint8)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), memory_errors("trying"):
        raise RuntimeError("something else")


def test_memory_of_this_machine_is_plausible() -> None:
    peak, free = peak_memory_bytes(CPU), free_memory_bytes(CPU)
    assert peak is None or 10**7 < peak < 10**12  # torch alone is beyond 10 MB: in bytes, not kilobytes
    assert free is None or 10**6 < free < 10**14


def test_free_memory_counts_what_the_file_cache_would_give_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  65000000 kB\nMemFree:  1000 kB\nMemAvailable:   50000000 kB\nCached: 49000000 kB\n")
    monkeypatch.setattr(host, "MEMINFO", meminfo)
    assert free_memory_bytes(CPU) == 50_000_000 * 1024
    monkeypatch.setattr(host, "MEMINFO", tmp_path / "nothing")
    elsewhere, in_all = free_memory_bytes(CPU), host.total_host_bytes()  # on macOS and Windows, as psutil has it
    assert elsewhere is not None
    assert in_all is not None
    assert 10**8 < elsewhere < in_all


def test_a_stopwatch_adds_up_its_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 10.0, 12.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watch = Stopwatch(CPU)
    for _ in range(2):
        with watch:
            pass
    assert watch.seconds == 3.0
    assert watch.spans == [(0.0, 1.0), (10.0, 12.0)]
    watch.since = 11.0
    assert watch.seconds == 1.0, "what was before does not count"


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux counts it")
def test_the_peak_is_this_process_s_own_and_not_that_of_who_started_it() -> None:
    """A shell command that a large program started reported the program's peak."""
    held = b"1" * 1_200_000_000  # torch with CUDA's libraries is 0.7 GB
    command = "import torch; from sfvqa.checkpoints.device import peak_memory_bytes as peak; "
    command += "print(peak(torch.device('cpu')))"
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout
    assert 50_000_000 < int(said) < len(held)
