"""A device: the one that is asked for, its memory, free and used, and what happens when that runs out."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import torch

from sfvqa.checkpoints.gpus import why_unusable
from sfvqa.checkpoints.host import free_host_bytes, peak_host_bytes
from sfvqa.checkpoints.memory import USE_LESS
from sfvqa.errors import OutOfMemoryError, UsageError
from sfvqa.wording import plural


def resolve_device(name: str = "auto", *, must_be_here: bool = True) -> torch.device:
    """Resolve a device name; `auto` is CUDA, else Apple's MPS, else the CPU. UsageError if it is unavailable.

    For what is only planned it need not be here.
    """
    if name == "auto":
        return next(device for device in map(torch.device, ("cuda", "mps", "cpu")) if is_here(device))
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"There is no device {name!r}.", "Use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"The device {name!r} is not supported.", "Use auto, cpu, cuda, cuda:N or mps.")
    if not must_be_here:
        return device
    if device.type == "cuda" and (error := why_unusable(device.index or 0)):
        raise error
    if device.type == "cuda" and torch.cuda.is_available() and (device.index or 0) >= torch.cuda.device_count():
        num_here = plural(torch.cuda.device_count(), "CUDA device")
        raise UsageError(f"There is no {name}, only {num_here}.", "Count from cuda:0.")
    if not is_here(device):
        raise UsageError(f"PyTorch finds no {device.type} device on this machine.", "Use --device auto or cpu.")
    return device


def is_here(device: torch.device) -> bool:
    """Whether this machine has a device of that kind, and PyTorch can use it."""
    if device.type == "cpu":
        return True
    if device.type == "mps":
        return torch.backends.mps.is_available()
    if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
        return False
    return why_unusable(device.index or 0) is None


_SMALL_MODEL = 10_000_000  # parameters: tiny, of 1.1 million, is faster with one thread


def leave_cores(model: torch.nn.Module) -> None:
    """Compute with one thread where a model is so small that more only take the cores that others need."""
    if sum(parameter.numel() for parameter in model.parameters()) < _SMALL_MODEL:
        torch.set_num_threads(1)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished its work, so that a clock read next is right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_memory_bytes(device: torch.device) -> int | None:
    """Free memory of `device` in bytes; None if the system does not report it or there is no such device."""
    if not is_here(device):
        return None
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        part = torch.cuda.get_per_process_memory_fraction(device.index)  # that this process may have
        return min(free, max(int(part * total) - torch.cuda.memory_reserved(device), 0))
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_host_bytes()


def release_memory(device: torch.device) -> None:
    """Return the memory that torch caches on a GPU, so that blocks of other sizes can be allocated."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_memory_bytes(device: torch.device) -> int | None:
    """Peak memory of this process in bytes, weights included: allocated on the GPUs, or resident on the CPU."""
    if device.type == "cuda":  # a model may be spread over several
        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    if (peak := peak_host_bytes()) is not None:
        return peak
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def memory_errors(while_doing: str, remedy: Callable[[], str] = lambda: USE_LESS) -> Iterator[None]:
    """Convert out-of-memory errors of device and host into OutOfMemoryError, which says what was being done."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if ran_out_of_memory(error):
            raise OutOfMemoryError(f"Memory ran out while {while_doing}.", remedy()) from error
        raise


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch or Python is that. Much of torch raises no more than a RuntimeError, whose text tells:
    the CPU's and MPS's allocators, CUDA's driver, and cuBLAS and cuDNN (`CUBLAS_STATUS_ALLOC_FAILED`).
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    signs = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in signs)


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU failed: CUDA then refuses every further request of this process."""
    if ran_out_of_memory(error):
        return False
    is_of_cuda = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "CUDA driver error"))
    return isinstance(error, torch.AcceleratorError) or is_of_cuda
