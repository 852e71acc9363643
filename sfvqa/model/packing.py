"""Linear layers on the CPU, their weights laid out once as the fastest kernels want them.

bfloat16: from a plain weight oneDNN makes its own layout at every call, which for a single token takes longer than the
product; and the activation behind a layer is computed with its product, while that is in the caches. 8 bits: a token
reads half the bytes, which is what takes its time; bitsandbytes' LLM.int8 suits GPUs, and rounds activations as well.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import GELUActivation, GELUTanh, SiLUActivation

from sfvqa.errors import SfvqaError


class _Packed(nn.Module):
    """A linear layer for inference, whose weight of `weight_bytes` is no parameter: there is no state to save."""

    bias: nn.Parameter | None

    def __init__(self, linear: Any, weight_bytes: int) -> None:
        super().__init__()
        self.weight_bytes = weight_bytes
        self.in_features, self.out_features = int(linear.in_features), int(linear.out_features)
        self.bias = linear.bias

    def _save_to_state_dict(self, *_: Any, **__: Any) -> None:
        raise SfvqaError(
            "The model is packed for inference, and its weights cannot be saved.",
            "Load the checkpoint with SlowFastForConditionalGeneration.from_pretrained, which packs nothing.",
        )


class PackedLinear(_Packed):
    """An `nn.Linear` in bfloat16, in oneDNN's layout, with what `activation` does behind it (see fused_activation)."""

    def __init__(self, linear: nn.Linear, activation: tuple[str, str] = ("none", "")) -> None:
        super().__init__(linear, linear.weight.numel() * torch.bfloat16.itemsize)
        self._activation, self._algorithm = activation
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())

    def forward(self, states: Tensor) -> Tensor:
        """`[…, in]` → `[…, out]`."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self._packed, self.bias, self._activation, [], self._algorithm
        )
        return output


_MOST_ROWS_IN_8_BITS = 16
"""Above it a product with the weight in the model's dtype is faster, although it has to be made of the 8 bits first."""


class EightBitLinear(_Packed):
    """bitsandbytes' `Linear8bitLt`: each row of the weight is 8 bits and a scale.

    Activations are not rounded to 8 bits as there; a few rows go in as bfloat16, for which alone the kernel is fast, in
    float32 too. There it moves the perplexity of SmolLM2-135M by 0.12 % (1,500 tokens of Python's manual, 16 at a time
    against all at once), which is less than the 8 bits themselves do (0.26 %).
    """

    def __init__(self, linear: Any) -> None:
        super().__init__(linear, linear.weight.CB.nbytes + linear.weight.SCB.nbytes)
        self._values: Tensor = linear.weight.CB
        self._scales: Tensor = linear.weight.SCB / 127

    def forward(self, states: Tensor) -> Tensor:
        """`[…, in]` → `[…, out]`."""
        rows = states.reshape(-1, self.in_features)
        if len(rows) > _MOST_ROWS_IN_8_BITS or self.in_features % 16:  # of which the kernel would read too many
            return functional.linear(states, self._values * self._scales.to(states.dtype)[:, None], self.bias)
        product = torch._weight_int8pack_mm(rows.bfloat16(), self._values, self._scales.bfloat16())
        product = product.to(states.dtype).view(*states.shape[:-1], -1)
        return product if self.bias is None else product + self.bias


def onednn_has_bfloat16() -> bool:
    """Whether torch was built with oneDNN, and the CPU has bfloat16."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


_ACTIVATIONS = {"fc1": ("act", "activation_fn"), "linear_1": ("act",), "gate_proj": ("act_fn",)}
"""By the name of a linear layer, what the activation behind it is called in the same module."""


def fused_activation(activation: nn.Module | None) -> tuple[str, str] | None:
    """By what name oneDNN has an activation, and with which algorithm; None for one that it does not have."""
    match activation:
        case nn.SiLU() | SiLUActivation():
            return "swish", ""
        case nn.GELU():
            return "gelu", activation.approximate
        case GELUTanh():
            return "gelu", "tanh"
        case GELUActivation() if activation.act is functional.gelu:
            return "gelu", "none"
    return None


@torch.inference_mode()
def pack_linears(module: nn.Module, dtype: torch.dtype) -> None:
    """Replace every linear layer below a module on the CPU that can be packed, so that no more than one is held twice.

    Those of 8 bits, and in bfloat16 the plain ones; an embedding that a plain one shares its weight with keeps it.
    """
    packs_plain = dtype is torch.bfloat16 and onednn_has_bfloat16()
    for name, child in module.named_children():
        if type(child).__name__ == "Linear8bitLt":
            setattr(module, name, EightBitLinear(child))
        elif type(child) is nn.Linear and packs_plain:
            setattr(module, name, _packed_with_activation(module, name, child))
        else:
            pack_linears(child, dtype)


def _packed_with_activation(module: nn.Module, name: str, linear: nn.Linear) -> PackedLinear:
    """The layer packed, and in place of the activation behind it, if oneDNN has that, nothing."""
    for behind in _ACTIVATIONS.get(name, ()):
        if (fused := fused_activation(getattr(module, behind, None))) is not None:
            setattr(module, behind, nn.Identity())
            return PackedLinear(linear, fused)
    return PackedLinear(linear)
