"""A packed linear layer computes what the plain one does, and its weight is held once."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from sfvqa.errors import SfvqaError
from sfvqa.model.packing import EightBitLinear, PackedLinear, onednn_has_bfloat16, pack_linears
from sfvqa.model.quantization import Quantization, quantizer_for

needs_bfloat16 = pytest.mark.skipif(not onednn_has_bfloat16(), reason="oneDNN computes no bfloat16 here")


@needs_bfloat16
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (3, 5, 96), (2, 1, 96), (70, 96)], ids=str)
def test_it_computes_what_the_plain_layer_does(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias).to(torch.bfloat16)
    states = torch.randn(shape).to(torch.bfloat16)
    with torch.inference_mode():
        exact = nn.functional.linear(states.float(), linear.weight.float(), linear.bias.float() if bias else None)
        packed = PackedLinear(linear)(states)
    assert packed.dtype is torch.bfloat16
    torch.testing.assert_close(packed.float(), exact, rtol=1e-2, atol=1e-2)


@needs_bfloat16
def test_it_cannot_be_saved_without_its_weight() -> None:
    """A checkpoint would be written that lacks every linear layer."""
    model = nn.Sequential(PackedLinear(nn.Linear(32, 32).to(torch.bfloat16)))
    with pytest.raises(SfvqaError, match="packed for inference"):
        model.state_dict()


@needs_bfloat16
def test_every_plain_layer_is_packed_and_a_shared_weight_stays_where_it_is_looked_up() -> None:
    embedding, head = nn.Embedding(64, 32), nn.Linear(32, 64, bias=False)
    head.weight = embedding.weight
    inner = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Sequential(nn.Linear(32, 32)))
    model = nn.ModuleDict({"embedding": embedding, "inner": inner, "head": head}).to(torch.bfloat16)
    pack_linears(model, torch.bfloat16)
    assert not [module for module in model.modules() if type(module) is nn.Linear]
    assert len([module for module in model.modules() if isinstance(module, PackedLinear)]) == 3
    assert [name for name, _ in model.named_parameters() if "weight" in name] == ["embedding.weight", "inner.1.weight"]


@needs_bfloat16
@pytest.mark.parametrize(
    ("names", "activation"),
    [
        (("fc1", "act"), nn.GELU()),
        (("fc1", "activation_fn"), ACT2FN["gelu_pytorch_tanh"]),
        (("linear_1", "act"), ACT2FN["gelu"]),
        (("gate_proj", "act_fn"), ACT2FN["silu"]),
    ],
    ids=str,
)
def test_the_activation_behind_a_layer_becomes_part_of_it(names: tuple[str, str], activation: nn.Module) -> None:
    """Computed before the product is rounded, and once, not twice."""
    torch.manual_seed(0)
    linear, states = nn.Linear(96, 40).to(torch.bfloat16), torch.randn(70, 96).to(torch.bfloat16)
    exact = activation(nn.functional.linear(states.float(), linear.weight.float(), linear.bias.float()))
    module: Any = nn.ModuleDict(dict(zip(names, (linear, activation), strict=True)))
    pack_linears(module, torch.bfloat16)
    with torch.inference_mode():
        found = module[names[1]](module[names[0]](states))
    torch.testing.assert_close(found.float(), exact, rtol=1e-2, atol=1e-2)
    assert isinstance(module[names[1]], nn.Identity)


@needs_bfloat16
def test_an_activation_that_onednn_lacks_stays() -> None:
    module: Any = nn.ModuleDict({"fc1": nn.Linear(8, 8).to(torch.bfloat16), "act": ACT2FN["quick_gelu"]})
    pack_linears(module, torch.bfloat16)
    assert type(module["act"]) is type(ACT2FN["quick_gelu"])


def eight_bit(linear: nn.Linear) -> Any:
    quantizer: Any = quantizer_for(Quantization.EIGHT_BIT)
    layer = quantizer.empty_linear(linear, torch.float32)
    layer.weight, layer.bias = quantizer.quantize(linear.weight.detach()), linear.bias
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 96), (2, 3, 96), (70, 96), (3, 100), (1, 104)], ids=str)
def test_a_layer_of_8_bits_multiplies_with_what_its_weight_stands_for(
    shape: tuple[int, ...], dtype: torch.dtype, bias: bool
) -> None:
    """A few rows and many go different ways, and so do widths that 16 does not divide, beyond which the kernel read:
    it crashed. None rounds the activations to 8 bits, as LLM.int8 does.
    """
    torch.manual_seed(0)
    plain = nn.Linear(shape[-1], 48, bias=bias).to(dtype)
    layer = eight_bit(plain)
    weight = layer.weight.CB.float() * layer.weight.SCB[:, None] / 127
    states = torch.randn(shape).to(dtype)
    module = nn.Sequential(layer)
    pack_linears(module, dtype)
    assert isinstance(module[0], EightBitLinear)
    with torch.inference_mode():
        found = module(states)
    expected = nn.functional.linear(states.float(), weight, None if plain.bias is None else plain.bias.float())
    assert found.dtype is dtype
    is_exact = dtype is torch.float32 and (shape[0] == 70 or shape[-1] % 16 != 0)
    tolerance = 1e-5 if is_exact else 2e-2
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(
        weight, plain.weight.float(), rtol=0, atol=plain.weight.detach().abs().max().item() / 200
    )
