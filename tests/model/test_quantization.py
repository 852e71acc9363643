"""Which layers are quantized, in checkpoints of both formats, and that nothing else ever is."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import nn

from sfvqa.errors import CheckpointError, UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.quantization import Quantization, quantizable_linears, quantization_of, quantizer_for, weight_bytes
from sfvqa.model.slow_fast import random_model
from tests.golden_folder import GOLDEN
from tests.model.conftest import ModelMaker, small_config

CLASSES = {"8bit": Linear8bitLt, "4bit": Linear4bit}
OWN_LINEARS = re.compile(
    r"language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
)  # written out: what the rule in the code must come to for Qwen2


@pytest.fixture
def own_folder(tmp_path: Path, make_model: ModelMaker) -> Path:
    make_model().save_pretrained(tmp_path / "own")
    return tmp_path / "own"


@pytest.fixture(params=["reference", "own"])
def folder(request: pytest.FixtureRequest, own_folder: Path) -> Path:
    return GOLDEN if request.param == "reference" else own_folder


@pytest.mark.parametrize("quantization", CLASSES)
def test_only_the_decoder_layers_own_linears_are_quantized(folder: Path, quantization: str) -> None:
    """The reference quantized the vision tower, the projector and the gates with them."""
    plain = SlowFastForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model = SlowFastForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, quantization=quantization)
    linears = {name for name, module in plain.named_modules() if type(module) is nn.Linear}
    quantized = {name for name, module in model.named_modules() if isinstance(module, CLASSES[quantization])}
    assert quantized == {name for name in linears if OWN_LINEARS.fullmatch(name)}
    assert len(quantized) == 7 * model.config.decoder_config.num_hidden_layers
    untouched, own = plain.state_dict(), model.state_dict()
    for name, tensor in untouched.items():
        if name.removesuffix(".weight") not in quantized:
            assert torch.equal(own[name], tensor), name


@pytest.mark.parametrize("quantization", CLASSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_kept_does_not_depend_on_the_dtype_it_is_used_in(
    own_folder: Path, quantization: str, dtype: torch.dtype
) -> None:
    """Values are quantized as stored; else a copy could not equal quantizing anew in every dtype."""
    exact, model = (
        SlowFastForConditionalGeneration.from_pretrained(own_folder, dtype=each, quantization=quantization)
        for each in (torch.float32, dtype)
    )
    name = "language_model.layers.0.mlp.up_proj"
    assert torch.equal(model.get_parameter(f"{name}.weight"), exact.get_parameter(f"{name}.weight"))
    output = model.get_submodule(name)(torch.ones(1, 3, 32, dtype=dtype))
    assert (output.dtype, bool(output.isfinite().all())) == (dtype, True)
    assert model.dtype is dtype


@pytest.mark.parametrize(("quantization", "limit"), [("8bit", 0.03), ("4bit", 0.2)])
def test_a_quantized_layer_computes_about_the_same(own_folder: Path, quantization: str, limit: float) -> None:
    name, states = "language_model.layers.1.mlp.down_proj", torch.randn(2, 5, 48)
    plain, model = (
        SlowFastForConditionalGeneration.from_pretrained(own_folder, dtype=torch.float32, quantization=each)
        for each in ("none", quantization)
    )
    with torch.inference_mode():
        wanted, found = plain.get_submodule(name)(states), model.get_submodule(name)(states)
    assert 0 < float((found - wanted).norm() / wanted.norm()) < limit


def test_memory_goes_down_with_the_bits() -> None:
    """Half a byte a weight and its scales, against two."""
    text = small_config().decoder_config.to_dict() | {"hidden_size": 128, "intermediate_size": 256}
    config = small_config(text_config=text)
    none, eight, four = (
        random_model(config, dtype=torch.bfloat16, quantization=quantization) for quantization in Quantization
    )
    num_quantized = sum(linear.weight.numel() for linear in quantizable_linears(none).values())
    saved = (weight_bytes(none) - weight_bytes(eight), weight_bytes(none) - weight_bytes(four))
    assert saved == pytest.approx((num_quantized, num_quantized * 1.5), rel=0.15)


def test_without_bitsandbytes_it_says_how_to_get_it(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="pip install bitsandbytes"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder, quantization="4bit")
    assert quantizer_for("none") is None


def test_a_bitsandbytes_that_does_not_import_is_said(
    own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one built for another CUDA: it was an error inside sfvqa."""
    broken = tmp_path / "broken" / "bitsandbytes.py"
    broken.parent.mkdir()
    broken.write_text('raise RuntimeError("libcudart.so is missing")')
    monkeypatch.syspath_prepend(broken.parent)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with pytest.raises(UsageError, match="bitsandbytes cannot be used: libcudart"):
        SlowFastForConditionalGeneration.from_pretrained(own_folder, quantization="8bit")


@pytest.mark.parametrize(
    "stored", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "bitsandbytes", "load_in_4bit": True}]
)
def test_quantization_by_others_is_refused(stored: dict[str, Any]) -> None:
    """FP4, or GPTQ, read as NF4 would be noise."""
    with pytest.raises(CheckpointError, match="quantized in a way"):
        quantization_of({"quantization_config": stored})
    assert quantization_of({}) is Quantization.NONE
