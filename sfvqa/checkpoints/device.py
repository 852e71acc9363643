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

from sfvqa.checkpoints.gpus import computes_in_bfloat16, usable_gpus, why_unusable
from sfvqa.checkpoints.host import free_host_bytes, peak_host_bytes
from sfvqa.checkpoints.memory import USE_LESS, MemoryEstimate
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


def resolve_dtype(name: str | torch.dtype, auto: str) -> torch.dtype:
    """Resolve the dtype to load weights in, `auto` where that is asked for. UsageError for an unknown name."""
    wanted = _member(DtypeName, str(name).removeprefix("torch."), "dtype")
    return getattr(torch, auto if wanted is DtypeName.AUTO else wanted)  # type: ignore[no-any-return]


def _member(enum: type[E], name: str, what: str) -> E:
    try:
        return enum(name)
    except ValueError:
        raise UsageError(f"There is no {what} {name!r}.", f"Use one of {', '.join(enum)}.") from None


def compute_exactly() -> None:
    """Have CUDA multiply float32 in float32, in this process from now on: cuDNN rounds it to TF32's 10 bits unasked."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


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
    if is_here(device) and not computes_in_bfloat16(device.index):
        raise UsageError("flash-attn runs on GPUs of compute capability 8.0 and later.", "Use --attention sdpa.")
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


def free_bytes_by_gpu(name: str, device: torch.device) -> dict[int, int]:
    """Free memory of each GPU, by its number, that `auto` may spread a model over; empty where there is no choice."""
    gpus = usable_gpus() if name == "auto" and device.type == "cuda" else []
    return {gpu: free_memory_bytes(torch.device("cuda", gpu)) or 0 for gpu in gpus} if len(gpus) > 1 else {}


def fits_first_gpu(estimate: MemoryEstimate, free_bytes: dict[int, int]) -> bool:
    """Whether a model stays on the first of several GPUs."""
    return estimate.weights_bytes <= ROOM * free_bytes[min(free_bytes)]


def free_on_several(estimate: MemoryEstimate, free_bytes: dict[int, int], part_bytes: int) -> int:
    """What a model that needs so much may take of several GPUs: of the first, or of all that it is spread over.

    Each of these holds what is not spread, such as activations, and all but the last may be left with too little room
    for one more part of at most `part_bytes`.
    """
    if fits_first_gpu(estimate, free_bytes):
        return free_bytes[min(free_bytes)]
    rooms = [max(free - estimate.unspread_bytes, 0) for free in free_bytes.values()]
    return max(sum(rooms) - (len(rooms) - 1) * part_bytes, 0) + estimate.unspread_bytes


def place(
    name: str, device: torch.device, dtype: torch.dtype, quantization: Quantization, estimate: MemoryEstimate
) -> Placement:
    """Place a model on `device`; with `auto` and several GPUs, on as many as needed, split between layers."""
    free = free_bytes_by_gpu(name, device)
    return spread_over(free, dtype, quantization, estimate) if free else device


def spread_over(
    free_bytes: dict[int, int], dtype: torch.dtype, quantization: Quantization, estimate: MemoryEstimate
) -> Callable[[Any], dict[str, torch.device]]:
    """Return a function that maps an empty network to devices: the first GPU if it fits there, else all evenly.

    `free_bytes` is the free memory of each GPU by its number.
    """

    def device_map(model: Any) -> dict[str, torch.device]:
        if fits_first_gpu(estimate, free_bytes):
            return {"": torch.device("cuda", min(free_bytes))}
        parts = _parts(model, dtype, quantization)
        share = estimate.weights_bytes / estimate.spread_bytes  # a layer brings its keys and values along
        rooms = {gpu: max(free - estimate.unspread_bytes, 0) * share for gpu, free in free_bytes.items()}
        for percent in range(1, 101):  # as even as can be: no GPU fuller than it must
            filled = _fill(parts, {gpu: room * percent / 100 for gpu, room in rooms.items()})
            if filled is not None:
                return filled
        raise OutOfMemoryError(
            f"The weights take {estimate.weights_bytes / 1e9:.1f} GB and do not fit the free memory of "
            f"{plural(len(free_bytes), 'GPU')}.",
            "Use --quant 4bit, free some memory, or use a smaller model.",
        )

    return device_map


def _parts(model: Any, dtype: torch.dtype, quantization: Quantization) -> list[tuple[list[str], float]]:
    """What stays on one GPU, in the order in which a video and a token pass it, with its bytes: modules by name."""
    item_bytes = {Quantization.EIGHT_BIT: 1.0, Quantization.FOUR_BIT: 0.52}.get(quantization, dtype.itemsize)
    quantized = {f"{name}.weight" for name in quantizable_linears(model)}
    decoder, head = model.language_model, "lm_head"
    beginning = ["language_model.embed_tokens", "language_model.rotary_emb"]
    ending = ["language_model.norm"]
    (beginning if model.config.tie_word_embeddings else ending).append(head)
    layers = [[f"language_model.layers.{index}"] for index in range(len(decoder.layers))]
    others = [[name] for name, _ in model.named_children() if name not in ("language_model", head)]
    bytes_of = {
        name: weight.numel() * (item_bytes if name in quantized else dtype.itemsize)
        for name, weight in model.named_parameters()
    }
    return [
        (names, sum(size for name, size in bytes_of.items() if name.startswith(tuple(f"{each}." for each in names))))
        for names in [*others, beginning, *layers, ending]
    ]


def _fill(parts: list[tuple[list[str], float]], rooms: dict[int, float]) -> dict[str, torch.device] | None:
    """Put parts into the rooms of GPUs, one GPU after the other; None if they do not fit."""
    places: dict[str, torch.device] = {}
    left = iter(rooms.items())
    gpu, room = next(left)
    for names, size in parts:
        while size > room:
            if (following := next(left, None)) is None:
                return None
            gpu, room = following
        room -= size
        places |= dict.fromkeys(names, torch.device("cuda", gpu))
    return places


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
        raise UsageError(against, "Leave out --static-decode, or what stands against it.")
    return wanted == StaticDecode.ON or (against is None and device is not None and device.type == "cuda")
