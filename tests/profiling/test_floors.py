"""Floors are operations over the matrix rate or bytes over the bandwidth, whichever takes longer."""

import pytest
import torch

from sfvqa.profiling.floors import DeviceRates, decoder_bytes, floors, measure_rates
from sfvqa.registry import QuantizationName, find_model
from sfvqa.registry.architecture import count_by_formula, prompt_size

SPEC = find_model("slowfast-7b-64f")
H200 = DeviceRates(flops_per_second=700e12, bytes_per_second=4.2e12)


def _floors(rates: DeviceRates, quantization: str = "none") -> dict[str, float]:
    prompt = prompt_size(SPEC.architecture, SPEC.fast_tokens, 64, num_text=50)
    flops = count_by_formula(SPEC.architecture, 64, prompt)
    return floors(SPEC.architecture, flops, prompt, rates, dtype="bfloat16", quantization=quantization)


def test_decoding_the_7b_is_reading_its_weights_and_what_is_kept() -> None:
    """7.6 billion weights but for the embeddings that are looked up, the KV cache, 42.5 MB of slow keys and values."""
    weights = decoder_bytes(SPEC.architecture, 2, QuantizationName.NONE)
    assert weights == pytest.approx(2 * (7.616e9 - 152_064 * 3584), rel=0.005)
    cache, slow = 28 * 2 * 512 * 2 * 1346, 42.47e6
    assert _floors(H200)["decode_seconds_per_token"] * 4.2e12 == pytest.approx(weights + cache + slow, abs=1e5)
    four_bit = decoder_bytes(SPEC.architecture, 2, QuantizationName.FOUR_BIT)
    assert 0.3 < four_bit / decoder_bytes(SPEC.architecture, 2, QuantizationName.NONE) < 0.4
    assert _floors(H200, "4bit")["decode_seconds_per_token"] < 0.4 * _floors(H200)["decode_seconds_per_token"]


def test_seeing_and_prefill_are_computing() -> None:
    found = _floors(H200)
    assert found["vision_tower_seconds"] == pytest.approx(128.6e12 / 700e12, rel=0.01)
    assert found["prefill_seconds"] == pytest.approx(18.46e12 / 700e12, rel=0.001)
    assert found["slow_keys_values_seconds"] == pytest.approx(0.152e12 / 700e12, rel=0.01)


def test_where_computing_is_quick_a_prefill_still_reads_the_weights() -> None:
    found = _floors(DeviceRates(flops_per_second=1e18, bytes_per_second=1e12))
    assert found["prefill_seconds"] == pytest.approx(14.1e9 / 1e12, rel=0.02)


def test_the_rates_of_this_machine_are_believable() -> None:
    rates = measure_rates(torch.device("cpu"), torch.float32)
    assert rates is not None
    assert 1e9 < rates.flops_per_second < 1e14
    assert 1e8 < rates.bytes_per_second < 1e12
