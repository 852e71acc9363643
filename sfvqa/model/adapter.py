"""The tensors of a LoRA adapter in PEFT's form, merged into a checkpoint's as these are loaded.

A weight that is to be quantized stays as it is, and the adapter's product is computed beside it: 4 bits would swallow
most of what little the adapter adds to them.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sfvqa.errors import CheckpointError
from sfvqa.model.loading import StoredModel
from sfvqa.model.quantization import Quantization, quantizable_linears, quantizer_for

_PREFIX = "base_model.model."  # PEFT's, before the names of the network that it adapted
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to a weight `[out, in]`: `up` `[out, r]` times `down` `[r, in]`; `up` is scaled already."""

    down: Tensor
    up: Tensor

    def added_to(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The weight with it in `dtype`, added in float32 and rounded once."""
        return (weight.float() + self.up @ self.down).to(dtype)


class AdaptedLinear(nn.Module):
    """A quantized linear layer, and the product of an adapter beside it."""

    def __init__(self, base: nn.Module, low_rank: LowRank, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = (
            nn.Parameter(part.to(device, dtype), requires_grad=False) for part in (low_rank.down, low_rank.up)
        )

    def forward(self, states: Tensor) -> Tensor:
        """`[…, in]` → `[…, out]`."""
        seen = nn.functional.linear(nn.functional.linear(states.to(self.down.dtype), self.down), self.up)
        return self.base(states) + seen.to(states.dtype)  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class AdapterTensors:
    """An adapter's tensors by the names of the weights that they change: products to add, and whole weights.

    `base_quantization` is that of the decoder in training: what was trained against quantized weights is merged into
    what these stand for.
    """

    low_rank: Mapping[str, LowRank]
    whole: Mapping[str, Tensor]
    base_quantization: Quantization = Quantization.NONE

    @classmethod
    def read(
        cls, path: Path, stored: StoredModel, *, alpha: float, by_root_of_rank: bool, base_quantization: str
    ) -> "AdapterTensors":
        """Read a file's tensors for a checkpoint; CheckpointError names those that do not fit it."""
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path} is corrupt: {error}.", "Train it again, or fetch it again.") from error
        shapes = {name: tensor.shape for name, tensor in stored.network.state_dict().items() if name in stored.parts}
        own = {name: _own_name(name, stored, shapes) for name in tensors}
        low_rank, whole, strange = {}, {}, []
        for name, tensor in tensors.items():
            weight = own[name]
            if name.endswith(_DOWN) and (up := tensors.get(name.removesuffix(_DOWN) + _UP)) is not None:
                rank = len(tensor)
                scale = alpha / (rank**0.5 if by_root_of_rank else rank)
                if up.shape[1:] == (rank,) and shapes.get(weight) == (len(up), *tensor.shape[1:]):
                    low_rank[weight] = LowRank(tensor.float(), up.float() * scale)
                    continue
            elif name.endswith(_UP) and name.removesuffix(_UP) + _DOWN in tensors:
                continue
            elif shapes.get(weight) == tensor.shape:
                whole[weight] = tensor
                continue
            strange.append(name)
        if strange:
            named = ", ".join(strange[:3]) + (f" and {len(strange) - 3} more" if len(strange) > 3 else "")
            raise CheckpointError(
                f"The adapter in {path.parent} has tensors that do not fit the model: {named}.",
                "Name the model that it was trained on with --model.",
            )
        return cls(low_rank, whole, Quantization(base_quantization))

    def merge(self, stored: StoredModel, *, beside: Collection[str] = ()) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """The checkpoint's tensors as `StoredModel.tensors` gives them, changed but for the products of `beside`."""
        quantizable = quantizable_linears(stored.network)
        for name, parts in stored.tensors():
            if name in self.whole:
                yield name, {"weight": self.whole[name]}
            elif name in self.low_rank and name not in beside:
                weight = self._as_trained(stored, parts, is_quantizable=name.removesuffix(".weight") in quantizable)
                yield name, {"weight": self.low_rank[name].added_to(weight, stored.dtype)}
            else:
                yield name, parts

    def _as_trained(self, stored: StoredModel, parts: Mapping[str, Tensor], *, is_quantizable: bool) -> Tensor:
        weight = parts["weight"]
        if is_quantizable and (quantizer := quantizer_for(stored.quantization)) is not None:
            return quantizer.dequantize(quantizer.restore(parts, weight.device))
        if is_quantizable and (quantizer := quantizer_for(self.base_quantization)) is not None:
            return quantizer.dequantize(quantizer.quantize(weight))
        return weight

    def put_beside(self, model: Any, names: Collection[str], dtype: torch.dtype) -> None:
        """Compute the products of quantized weights beside their layers."""
        for name in names:
            if (low_rank := self.low_rank.get(name)) is not None:
                module_name = name.removesuffix(".weight")
                layer = model.get_submodule(module_name)
                model.set_submodule(module_name, AdaptedLinear(layer, low_rank, layer.weight.device, dtype))


def _own_name(name: str, stored: StoredModel, known: Collection[str]) -> str:
    """The network's name of the weight that a tensor of an adapter changes; the adapter may name transformers' own."""
    bare = name.removeprefix(_PREFIX)
    for end in (_DOWN, _UP):
        if bare.endswith(end):
            bare = bare.removesuffix(end) + ".weight"
    return bare if bare in known else stored.config.family.rename_tensor(bare)
