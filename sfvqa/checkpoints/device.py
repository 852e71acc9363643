"""Where and how a model runs: device, dtype, attention kernel, quantization, and which layer goes to which GPU.

Also the memory of a device, free and used, and what happens when it runs out.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, TypeVar

import torch

from sfvqa.checkpoints.host import free_host_bytes
from sfvqa.checkpoints.memory import USE_LESS
from sfvqa.errors import OutOfMemoryError, UsageError
from sfvqa.model.loading import Placement
from sfvqa.model.quantization import Quantization, quantizable_linears
from sfvqa.registry import QuantizationName
from sfvqa.wording import plural

E = TypeVar("E", bound=StrEnum)


class DtypeName(StrEnum):
    """Values of `--dtype`; `auto` is the model's own dtype, but float32 on a CPU without bfloat16."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


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
    if not is_here(device):
        raise UsageError(f"PyTorch finds no {device.type} device on this machine.", "Use --device auto or cpu.")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        num_here = plural(torch.cuda.device_count(), "CUDA device")
        raise UsageError(f"There is no {name}, only {num_here}.", "Count from cuda:0.")
    return device


def is_here(device: torch.device) -> bool:
    """Whether PyTorch finds such a device on this machine."""
    if device.type == "cpu":
        return True
    return torch.cuda.is_available() if device.type == "cuda" else torch.backends.mps.is_available()


def resolve_dtype(name: str | torch.dtype, auto: str) -> torch.dtype:
    """Resolve the dtype to load weights in, `auto` where that is asked for. UsageError for an unknown name."""
    wanted = _member(DtypeName, str(name).removeprefix("torch."), "dtype")
    return getattr(torch, auto if wanted is DtypeName.AUTO else wanted)  # type: ignore[no-any-return]


def _member(enum: type[E], name: str, what: str) -> E:
    try:
        return enum(name)
    except ValueError:
        raise UsageError(f"There is no {what} {name!r}.", f"Use one of {', '.join(enum)}.") from None


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
        return int(torch.cuda.mem_get_info(device)[0])
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
        # torch's CPU and MPS allocators raise nothing more precise than RuntimeError
        said_so = any(words in str(error) for words in ("can't allocate memory", "MPS backend out of memory"))
        if said_so or isinstance(error, torch.OutOfMemoryError | MemoryError):
            raise OutOfMemoryError(f"Memory ran out while {while_doing}.", remedy()) from error
        raise


def is_device_lost(error: BaseException) -> bool:
    """Whether the GPU failed: CUDA then refuses every further request of this process."""
    if isinstance(error, torch.OutOfMemoryError):
        return False
    is_of_cuda = isinstance(error, RuntimeError) and str(error).startswith(("CUDA error", "CUDA driver error"))
    return isinstance(error, torch.AcceleratorError) or is_of_cuda


class AttentionKernel(StrEnum):
    """Attention implementations, by transformers' names."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLASH_ATTENTION_2 = "flash_attention_2"


def resolve_attention(name: str, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """Resolve an attention kernel; UsageError if it is unknown, not installed, or not supported there."""
    kernel = _member(AttentionKernel, name, "attention")
    if kernel is AttentionKernel.FLASH_ATTENTION_2:
        _check_flash_attention(device, dtype)
    return kernel


def _check_flash_attention(device: torch.device, dtype: torch.dtype) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        raise UsageError("flash-attn is not installed.", "Install `sfvqa[flash-attn]`, or use --attention sdpa.")
    if device.type != "cuda" or dtype is torch.float32:
        raise UsageError(
            f"flash-attn runs on CUDA devices in 16 bits, not on {device.type} in {str(dtype)[6:]}.",
            "Use --dtype bfloat16 on a GPU, or --attention sdpa.",
        )
    from transformers.utils.import_utils import is_flash_attn_2_available

    again = "Install `sfvqa[flash-attn]` again, or use --attention sdpa."
    try:
        importlib.import_module("flash_attn")
    except Exception as error:  # it is compiled for one torch and one CUDA, and says so in many ways
        reason = f"{error or type(error).__name__}".splitlines()[0]
        raise UsageError(f"flash-attn is installed but cannot be loaded: {reason}.", again) from error
    if not is_flash_attn_2_available():
        raise UsageError("flash-attn is installed, but transformers cannot use this version.", again)


_DEVICES = ("cuda", "cpu")  # on MPS bitsandbytes would fetch its kernels from the network when they are first used


def resolve_quantization(name: str, device: torch.device, stored: Quantization) -> Quantization:
    """Resolve a quantization on `device` for weights stored as `stored`; UsageError if it is not supported.

    `auto` that nobody resolved by the free memory is what the checkpoint is stored in.
    """
    wanted = _member(QuantizationName, name, "quantization")
    quantization = stored if wanted is QuantizationName.AUTO else Quantization(wanted.value)
    if quantization is not Quantization.NONE and device.type not in _DEVICES:
        raise UsageError(
            f"{quantization} does not run on {device.type}.", "Use --quant none, or a CUDA device or the CPU."
        )
    return quantization


ROOM = 0.6  # of a GPU's free memory may be weights; the rest is for caches and activations


def place(name: str, device: torch.device, dtype: torch.dtype, quantization: Quantization) -> Placement:
    """Place a model on `device`; with `auto` and several GPUs, on as many as needed, split between layers."""
    if name != "auto" or device.type != "cuda" or torch.cuda.device_count() < 2:
        return device
    free = {index: free_memory_bytes(torch.device("cuda", index)) or 0 for index in range(torch.cuda.device_count())}
    return spread_over(free, dtype, quantization)


def spread_over(
    free_bytes: dict[int, int], dtype: torch.dtype, quantization: Quantization
) -> Callable[[Any], dict[str, torch.device]]:
    """Return a function that maps an empty network to devices: the first GPU if it fits there, else all evenly.

    `free_bytes` is the free memory of each GPU by its number. The map is accelerate's, which keeps tied weights
    together and no layer in two places.
    """

    def device_map(model: Any) -> dict[str, torch.device]:
        from accelerate.utils import CustomDtype, compute_module_sizes, get_balanced_memory, infer_auto_device_map

        small = {Quantization.EIGHT_BIT: torch.int8, Quantization.FOUR_BIT: CustomDtype.INT4}.get(quantization)
        special = {f"{name}.weight": small for name in quantizable_linears(model)} if small is not None else None
        needed = compute_module_sizes(model, dtype=dtype, special_dtypes=special)[""]
        first = min(free_bytes)
        if needed <= ROOM * free_bytes[first]:
            return {"": torch.device("cuda", first)}
        sizes = {"no_split_module_classes": model._no_split_modules, "dtype": dtype, "special_dtypes": special}
        balanced = get_balanced_memory(model, max_memory=dict(free_bytes), **sizes)
        found = infer_auto_device_map(model, max_memory=balanced, **sizes)
        if not all(isinstance(where, int) for where in found.values()):  # accelerate would leave some on the disk
            raise OutOfMemoryError(
                f"The weights take {needed / 1e9:.1f} GB and do not fit the free memory of "
                f"{plural(len(free_bytes), 'GPU')}.",
                "Use --quant 4bit, free some memory, or use a smaller model.",
            )
        return {part: torch.device("cuda", where) for part, where in found.items()}

    return device_map


class StaticDecode(StrEnum):
    """Values of `--static-decode`; `auto` is on where it pays: on CUDA, where steps have a fixed size."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def decodes_static(
    wanted: str, *, attention: str, quantization: str, device: torch.device | None, evidence: bool = False
) -> bool:
    """Whether tokens are decoded over buffers of fixed size. UsageError where that is asked for and not possible.

    `quantization` may be auto; without a device, as before one is known, `auto` is off.
    """
    if wanted == StaticDecode.OFF:
        return False
    reasons = {
        f"--static-decode on computes attention by sdpa, not by {attention}.": attention != "sdpa",
        "8-bit weights are multiplied differently at each step, which cannot be recorded.": quantization == "8bit",
        "The steps that --static-decode on records and replays cannot be watched for evidence.": evidence,
    }
    against = next((reason for reason, applies in reasons.items() if applies), None)
    if wanted == StaticDecode.ON and against is not None:
        raise UsageError(against, "Leave out --static-decode, or what cannot be recorded.")
    return wanted == StaticDecode.ON or (against is None and device is not None and device.type == "cuda")
