"""Where a model runs: device and dtype from what was asked, memory free and used, and running out of it."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum

import torch

from sfvqa.errors import OutOfMemoryError, UsageError
from sfvqa.inference.fit import USE_LESS
from sfvqa.inference.host_memory import free_host_bytes


class DtypeName(StrEnum):
    """What `--dtype` takes; `auto` is float32 on the CPU, and what the checkpoint is stored in elsewhere."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def resolve_device(name: str = "auto", *, must_be_here: bool = True) -> torch.device:
    """The device `name` means; `auto` is CUDA, else Apple's MPS, else the CPU. UsageError when it is not there.

    For what is only planned it need not be here.
    """
    if name == "auto":
        kinds = [kind for kind in ("cuda", "mps") if _is_available(kind)]
        return torch.device(kinds[0] if kinds else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"There is no device {name!r}.", "Use auto, cpu, cuda, cuda:N or mps.") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"The device {name!r} is not supported.", "Use auto, cpu, cuda, cuda:N or mps.")
    if not must_be_here:
        return device
    if not is_here(device):
        raise UsageError(f"This machine offers no {device.type} device to torch.", "Use --device auto or cpu.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise UsageError(f"There are {torch.cuda.device_count()} CUDA devices, no {name}.", "Count from cuda:0.")
    return device


def is_here(device: torch.device) -> bool:
    """Whether this machine offers such a device to torch."""
    return device.type == "cpu" or _is_available(device.type)


def resolve_dtype(name: str | torch.dtype, device: torch.device, stored: torch.dtype | None) -> torch.dtype:
    """The dtype to load weights in; `stored` is what the checkpoint's config says. UsageError when unknown."""
    try:
        wanted = DtypeName(str(name).removeprefix("torch."))
    except ValueError:
        raise UsageError(
            f"There is no dtype {str(name)!r} for weights.", f"Use one of {', '.join(DtypeName)}."
        ) from None
    if wanted is not DtypeName.AUTO:
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    return torch.float32 if device.type == "cpu" else stored or torch.bfloat16


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done what it was given, so that a clock read next tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory a model could still take on `device`; None where the system does not tell, or there is no such device."""
    if not is_here(device):
        return None
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_host_bytes()


def release_memory(device: torch.device) -> None:
    """Give back what torch keeps of freed tensors on a GPU: pieces of other sizes can then be had."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def peak_memory_bytes(device: torch.device) -> int | None:
    """The most memory this process has used at a time, weights included: on the GPU, or resident on the CPU."""
    if device.type == "cuda":  # a model may be spread over several
        return sum(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def memory_errors(while_doing: str, remedy: Callable[[], str] = lambda: USE_LESS) -> Iterator[None]:
    """Turn running out of memory, on the device or the host, into OutOfMemoryError that says what was being done."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(_ran_out(while_doing), remedy()) from error
    except RuntimeError as error:
        # torch's CPU and MPS allocators raise nothing more precise
        if "can't allocate memory" in str(error) or "MPS backend out of memory" in str(error):
            raise OutOfMemoryError(_ran_out(while_doing), remedy()) from error
        raise


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU failed: CUDA then refuses everything that this process asks of it."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    is_of_cuda = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "CUDA driver error"))
    return isinstance(error, torch.AcceleratorError) or is_of_cuda


def _ran_out(while_doing: str) -> str:
    return f"Memory ran out while {while_doing}."


def _is_available(kind: str) -> bool:
    return torch.cuda.is_available() if kind == "cuda" else torch.backends.mps.is_available()
