"""What computes attention: from what was asked for to what can be done on a device. Loads nothing."""

import importlib
import importlib.util
from enum import StrEnum

import torch

from sfvqa.errors import UsageError


class AttentionKernel(StrEnum):
    """What computes attention, in transformers' names."""

    SDPA = "sdpa"
    EAGER = "eager"
    FLASH_ATTENTION_2 = "flash_attention_2"


def resolve_attention(name: str, device: torch.device, dtype: torch.dtype) -> AttentionKernel:
    """The kernel `name` means; UsageError when it is unknown, not installed, or cannot compute there."""
    try:
        kernel = AttentionKernel(name)
    except ValueError:
        raise UsageError(f"There is no attention {name!r}.", f"Use one of {', '.join(AttentionKernel)}.") from None
    if kernel is AttentionKernel.FLASH_ATTENTION_2:
        _check_flash_attention(device, dtype)
    return kernel


def _check_flash_attention(device: torch.device, dtype: torch.dtype) -> None:
    if importlib.util.find_spec("flash_attn") is None:
        raise UsageError("flash-attn is not installed.", "Install `sfvqa[flash-attn]`, or use --attention sdpa.")
    if device.type != "cuda" or dtype is torch.float32:
        raise UsageError(
            f"flash-attn computes on CUDA devices in 16 bits, not on {device.type} in {str(dtype)[6:]}.",
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
        raise UsageError("flash-attn is installed but transformers finds no version of it that it can use.", again)
