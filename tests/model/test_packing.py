"""A packed linear layer computes what the plain one does, and its weight is held once."""

import pytest
import torch
from torch import nn

from sfvqa.errors import SfvqaError
from sfvqa.model.packing import PackedLinear, can_pack, pack_linears

pytestmark = pytest.mark.skipif(not can_pack(), reason="oneDNN computes no bfloat16 here")


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


def test_it_cannot_be_saved_without_its_weight() -> None:
    """A checkpoint would be written that lacks every linear layer."""
    model = nn.Sequential(PackedLinear(nn.Linear(32, 32).to(torch.bfloat16)))
    with pytest.raises(SfvqaError, match="packed for inference"):
        model.state_dict()


def test_every_plain_layer_is_packed_and_a_shared_weight_stays_where_it_is_looked_up() -> None:
    embedding, head = nn.Embedding(64, 32), nn.Linear(32, 64, bias=False)
    head.weight = embedding.weight
    inner = nn.Sequential(nn.Linear(32, 32), nn.LayerNorm(32), nn.Sequential(nn.Linear(32, 32)))
    model = nn.ModuleDict({"embedding": embedding, "inner": inner, "head": head}).to(torch.bfloat16)
    pack_linears(model)
    assert not [module for module in model.modules() if type(module) is nn.Linear]
    assert len([module for module in model.modules() if isinstance(module, PackedLinear)]) == 3
    assert [name for name, _ in model.named_parameters() if "weight" in name] == ["embedding.weight", "inner.1.weight"]
