"""Stand-ins for what libraries do beneath fake tensors: bitsandbytes' parameters, flash-attn's kernels, accelerate."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import accelerate.big_modeling
import bitsandbytes
import bitsandbytes.nn.modules
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, masking_utils, modeling_flash_attention_utils
from transformers.utils import import_utils

from sfvqa.model.quantization import FourBit

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def fake_libraries() -> Iterator[None]:
    """Have them for a while."""
    with ExitStack() as stack:
        # transformers takes fake tensors for a trace, and then makes masks that it would leave out.
        for module in (masking_utils, modeling_flash_attention_utils):
            stack.enter_context(patch.object(module, "is_tracing", lambda *_: False))
        stack.enter_context(patch.object(accelerate.big_modeling, "check_cuda_p2p_ib_support", lambda: True))
        for module in (bitsandbytes.nn, bitsandbytes.nn.modules):
            stack.enter_context(patch.object(module, "Params4bit", _parameter))
            stack.enter_context(patch.object(module, "Int8Params", _parameter))
        stack.enter_context(patch.object(FourBit, "quantize", _quantize_to_four_bits))
        # A code book that is kept from before is a tensor with memory; and a fake one must not be kept.
        stack.enter_context(patch.dict(bitsandbytes.functional.name2qmap, clear=True))
        stack.enter_context(patch.dict(sys.modules, _flash_attn()))
        for module in (modeling_flash_attention_utils, import_utils):
            stack.enter_context(patch.object(module, "is_flash_attn_2_available", lambda: True))
        stack.enter_context(patch.object(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_, **__: True))
        yield


def _parameter(data: Any = None, requires_grad: bool = False, **fields: Any) -> nn.Parameter:  # noqa: ARG001
    """With the fields of bitsandbytes' own classes, which are kinds of tensors that no fake one can become."""
    parameter: Any = nn.Parameter(data, requires_grad=False)
    for name in ("quant_state", "module", "CB", "SCB"):
        setattr(parameter, name, fields.get(name))
    return parameter  # type: ignore[no-any-return]


def _quantize_to_four_bits(_quantizer: FourBit, weight: Tensor) -> nn.Parameter:
    data, state = bitsandbytes.functional.quantize_4bit(weight, compress_statistics=True, quant_type="nf4")
    return _parameter(data, quant_state=state)


def _flash_attn() -> dict[str, ModuleType]:
    """A flash-attn that checks what its kernels would refuse and computes nothing."""

    def attend(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        assert query.dtype in (torch.bfloat16, torch.float16)
        assert query.dtype == key.dtype == value.dtype
        assert query.device == key.device == value.device
        assert query.stride(-1) == key.stride(-1) == value.stride(-1) == 1
        assert query.shape[-2] % key.shape[-2] == 0
        return query.clone()  # one launch

    module, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    module.__spec__ = ModuleSpec("flash_attn", None)
    own: Any = module
    own.__version__ = "2.8.3"
    own.flash_attn_func = own.flash_attn_varlen_func = own.flash_attn_with_kvcache = attend
    paddings: Any = padding
    paddings.pad_input = modeling_flash_attention_utils._pad_input
    paddings.unpad_input = modeling_flash_attention_utils._unpad_input
    return {"flash_attn": module, "flash_attn.bert_padding": padding}
