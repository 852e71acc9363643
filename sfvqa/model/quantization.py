"""Quantize the decoder layers' own linear layers to 8 or 4 bits with bitsandbytes, and nothing else.

Values are quantized as stored, whatever dtype the model computes in: a quantized checkpoint equals quantizing anew.
"""

import copy
import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from math import ceil, prod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.model.config import read_json
from sfvqa.model.hybrid_layer import GatedSlowAttention
from sfvqa.model.packing import EightBitLinear, PackedLinear

OUTLIER_THRESHOLD = 6.0  # LLM.int8 (Dettmers et al. 2022): columns of activations above it are computed in 16 bit


class Quantization(StrEnum):
    """Bits of the decoder layers' linear weights; `none` keeps them as loaded."""

    NONE = "none"
    EIGHT_BIT = "8bit"
    """LLM.int8: rows scaled to 8 bits, activations too, outlying columns in 16 bit."""
    FOUR_BIT = "4bit"
    """NF4 in blocks of 64, their scales quantized again (Dettmers et al. 2023); computed in the model's dtype."""


def quantizable_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """By name, the linear layers a quantization applies to: those of the decoder layers, slow attention's left out.

    Read off the network itself, not off a list of names, so that a new projection anywhere else stays as it is.
    """
    found = {}
    for layer_name, layer in model.named_modules():
        if layer_name.startswith("language_model.layers.") and layer_name.count(".") == 2:
            left_out = [name for name, module in layer.named_modules() if isinstance(module, GatedSlowAttention)]
            for name, module in layer.named_modules():
                if isinstance(module, nn.Linear) and not any(name.startswith(f"{part}.") for part in left_out):
                    found[f"{layer_name}.{name}"] = module
    return found


class LinearQuantizer(ABC):
    """How weights are quantized to one kind of parameter, and how those are stored."""

    kind: ClassVar[Quantization]
    stated: ClassVar[dict[str, Any]]
    """Of it in config.json."""

    def replace_linears(self, model: nn.Module, dtype: torch.dtype) -> frozenset[str]:
        """Put empty quantized layers in place of a model's empty ones; the names of their weights."""
        linears = quantizable_linears(model)
        for name, linear in linears.items():
            model.set_submodule(name, self.empty_linear(linear, dtype))
        return frozenset(f"{name}.weight" for name in linears)

    @abstractmethod
    def empty_linear(self, linear: nn.Linear, dtype: torch.dtype) -> nn.Module:
        """A layer of the same size that computes in `dtype`, without memory."""

    @abstractmethod
    def quantize(self, weight: Tensor) -> nn.Parameter:
        """A weight `[out, in]` of any float dtype → the parameter, on the same device."""

    @abstractmethod
    def dequantize(self, parameter: Any) -> Tensor:
        """What a parameter from `quantize` or `restore` stands for, `[out, in]` in float32."""

    @abstractmethod
    def restore(self, stored: Mapping[str, Tensor], device: torch.device) -> nn.Parameter:
        """The parameter on `device`, from what `stored_tensors` gave, by the same keys."""

    def attach(self, module: Any, parameter: Any, dtype: torch.dtype) -> None:  # noqa: ARG002  not of every kind
        """Set it as the weight of a layer from `empty_linear`."""
        module.weight = parameter

    @abstractmethod
    def stored_tensors(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Everything it takes to restore a parameter; keys are as bitsandbytes and transformers name it in a layer."""

    @abstractmethod
    def stored_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...] | None]:
        """The shapes of what `stored_tensors` gives for a weight of `shape`; None for one that varies."""


def stored_name(weight_name: str, key: str) -> str:
    """The name in a file of one of the tensors that a weight is stored in.

    >>> stored_name("mlp.up_proj.weight", "SCB")
    'mlp.up_proj.SCB'
    """
    return weight_name if key == "weight" else weight_name.removesuffix("weight") + key


def _empty(linear: nn.Linear, class_name: str, **options: Any) -> Any:
    """A layer of bitsandbytes of the size of `linear`, without memory."""
    with torch.device("meta"):
        quantized_class = getattr(_bitsandbytes().nn, class_name)
        return quantized_class(linear.in_features, linear.out_features, bias=linear.bias is not None, **options)


class FourBit(LinearQuantizer):
    """NF4 with double quantization."""

    kind = Quantization.FOUR_BIT
    stated: ClassVar = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    _BLOCK, _NESTED_BLOCK = 64, 256

    def empty_linear(self, linear: nn.Linear, dtype: torch.dtype) -> nn.Module:
        layer = _empty(linear, "Linear4bit", compute_dtype=dtype, compress_statistics=True, quant_type="nf4")
        # Else CPUs with AVX512-BF16 compute in bfloat16 whatever the dtype, and refuse sizes that 32 does not divide.
        layer.support_avx512bf16_for_cpu = False
        return layer  # type: ignore[no-any-return]

    def quantize(self, weight: Tensor) -> nn.Parameter:
        parameter = _bitsandbytes().nn.Params4bit(
            weight, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
        return parameter.to(weight.device)  # type: ignore[no-any-return]

    def dequantize(self, parameter: Any) -> Tensor:
        state = copy.copy(parameter.quant_state)
        state.dtype = torch.float32
        return _bitsandbytes().functional.dequantize_4bit(parameter.data, state)  # type: ignore[no-any-return]

    def restore(self, stored: Mapping[str, Tensor], device: torch.device) -> nn.Parameter:
        tensors = {key: tensor.to(device, copy=True) for key, tensor in stored.items()}
        data = tensors.pop("weight")
        return _bitsandbytes().nn.Params4bit.from_prequantized(data, tensors, device=device)  # type: ignore[no-any-return]

    def attach(self, module: Any, parameter: Any, dtype: torch.dtype) -> None:
        parameter.quant_state.dtype = dtype
        parameter.module, module.quant_state, module.weight = module, parameter.quant_state, parameter

    def stored_tensors(self, parameter: Any) -> dict[str, Tensor]:
        state = parameter.quant_state.as_dict(packed=True)
        return {"weight": parameter.data, **{f"weight.{key}": tensor for key, tensor in state.items()}}

    def stored_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...] | None]:
        num_blocks = ceil(prod(shape) / self._BLOCK)
        return {
            "weight": (ceil(prod(shape) / 2), 1),
            "weight.absmax": (num_blocks,),
            "weight.quant_map": (16,),
            "weight.nested_absmax": (ceil(num_blocks / self._NESTED_BLOCK),),
            "weight.nested_quant_map": (256,),
            "weight.quant_state.bitsandbytes__nf4": None,
        }


class EightBit(LinearQuantizer):
    """LLM.int8."""

    kind = Quantization.EIGHT_BIT
    stated: ClassVar = {"load_in_8bit": True, "llm_int8_threshold": OUTLIER_THRESHOLD}

    def empty_linear(self, linear: nn.Linear, dtype: torch.dtype) -> nn.Module:  # noqa: ARG002  it takes any
        return _empty(linear, "Linear8bitLt", has_fp16_weights=False, threshold=OUTLIER_THRESHOLD)  # type: ignore[no-any-return]

    def quantize(self, weight: Tensor) -> nn.Parameter:
        values, scales, _ = _bitsandbytes().functional.int8_vectorwise_quant(weight.to(torch.float16))
        return self._parameter(values, scales)

    def dequantize(self, parameter: Any) -> Tensor:
        return parameter.CB.float() * (parameter.SCB.float() / 127)[:, None]  # type: ignore[no-any-return]

    def restore(self, stored: Mapping[str, Tensor], device: torch.device) -> nn.Parameter:
        return self._parameter(stored["weight"].to(device, copy=True), stored["SCB"].to(device, copy=True))

    def stored_tensors(self, parameter: Any) -> dict[str, Tensor]:
        return {"weight": parameter.data, "SCB": parameter.SCB}

    def stored_shapes(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...] | None]:
        return {"weight": shape, "SCB": shape[:1]}

    @staticmethod
    def _parameter(values: Tensor, scales: Tensor) -> nn.Parameter:
        parameter: nn.Parameter = _bitsandbytes().nn.Int8Params(values, requires_grad=False, CB=values, SCB=scales)
        return parameter


_QUANTIZERS: dict[Quantization, type[LinearQuantizer]] = {each.kind: each for each in (EightBit, FourBit)}


def weight_bytes(model: nn.Module) -> int:
    """What a network's weights take in memory, with the scales of quantized ones; tied weights count once.

    A packed layer's weight is no parameter, and counts on its own.
    """
    packed = [module for module in model.modules() if isinstance(module, PackedLinear | EightBitLinear)]
    total = sum(layer.weight_bytes for layer in packed)
    for parameter in model.parameters():
        state, scales = getattr(parameter, "quant_state", None), getattr(parameter, "SCB", None)
        beside = [scales] if scales is not None else state.as_dict(packed=True).values() if state is not None else ()
        total += parameter.nbytes + sum(tensor.nbytes for tensor in beside)
    return total


def quantizer_for(quantization: Quantization | str) -> LinearQuantizer | None:
    """The quantizer of a kind, None for `none`; UsageError if bitsandbytes is not installed."""
    quantization = Quantization(quantization)
    if quantization is Quantization.NONE:
        return None
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            f"{quantization} needs bitsandbytes, which is not installed.",
            "Install it with `pip install bitsandbytes`, or use --quant none.",
        )
    return _QUANTIZERS[quantization]()


def read_quantization(folder: str | Path) -> Quantization:
    """How the weights of a checkpoint folder are stored. Errors as `quantization_of` and `read_json`."""
    return quantization_of(read_json(Path(folder) / "config.json"))


def quantization_of(config_fields: Mapping[str, Any]) -> Quantization:
    """How a checkpoint's weights are stored, by its config.json; CheckpointError for quantizations not made by us."""
    stored = config_fields.get("quantization_config")
    if stored is None:
        return Quantization.NONE
    for quantization in _QUANTIZERS:
        if stored == quantization_config(quantization):
            return quantization
    raise CheckpointError(
        "The checkpoint is quantized in a way that sfvqa does not read.", "Make a copy with `sfvqa models quantize`."
    )


def refuse_other(folder: Path | str, stored: Quantization, wanted: Quantization) -> None:
    """Raise UsageError if a checkpoint is stored in another quantization than wanted."""
    if stored not in (Quantization.NONE, wanted):
        raise UsageError(
            f"The checkpoint in {folder} is a copy quantized to {stored}; it cannot be loaded as {wanted}.",
            f"Use --quant {stored}, or the checkpoint that it was made from.",
        )


def quantization_config(quantization: Quantization) -> dict[str, Any]:
    """What config.json says of a quantized checkpoint, in transformers' words."""
    return {"quant_method": "bitsandbytes", **_QUANTIZERS[quantization].stated}


def _bitsandbytes() -> Any:
    """Imported on first use, since it takes most of a second; without the warning it logs at every 8-bit layer."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes
    except Exception as error:  # whatever a library raises that does not find its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(
            f"bitsandbytes cannot be used: {reason.removesuffix('.')}.", "Reinstall it, or use --quant none."
        ) from error
    return bitsandbytes
