"""Linear layers in bfloat16 on the CPU, their weights laid out once as oneDNN wants them.

From a plain weight it makes its own layout at every call, which for a single token takes longer than the product.
"""

from typing import Any

import torch
from torch import Tensor, nn

from sfvqa.errors import SfvqaError


class PackedLinear(nn.Module):
    """An `nn.Linear` for inference; its packed weight is opaque, so that there is no state to save."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous())

    def _save_to_state_dict(self, *_: Any, **__: Any) -> None:
        raise SfvqaError(
            "The model is packed for inference, and its weights cannot be saved.",
            "Load the checkpoint with SlowFastForConditionalGeneration.from_pretrained, which packs nothing.",
        )

    def forward(self, states: Tensor) -> Tensor:
        """`[…, in]` → `[…, out]`."""
        output: Tensor = torch.ops.mkldnn._linear_pointwise(states, self._packed, self.bias, "none", [], "")
        return output


def can_pack() -> bool:
    """Whether torch was built with oneDNN, and the CPU has bfloat16."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.inference_mode()
def pack_linears(module: nn.Module) -> None:
    """Replace every `nn.Linear` below a module, one after the other, so that no more than one is held twice.

    An embedding that a linear layer shares its weight with keeps it.
    """
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, PackedLinear(child))
        else:
            pack_linears(child)
