"""How a model computes, and where: dtype, attention kernel, quantization, and which layer goes to which GPU."""

import importlib
import importlib.util
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import torch

from sfvqa.checkpoints.device import free_memory_bytes, is_here
from sfvqa.checkpoints.gpus import computes_in_bfloat16, usable_gpus
from sfvqa.checkpoints.memory import MemoryEstimate
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
