"""The least that a GPU needs follows from what the code asks of it, and agrees with the formulas for the network."""

import pytest

from sfvqa.lab.fake_cuda.device import why_not
from sfvqa.lab.measurements.roofline import main, roofline
from sfvqa.profiling.floors import decoder_bytes
from sfvqa.registry import QuantizationName, find_model
from sfvqa.registry.architecture import prefill_flops, prompt_size

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

SEVEN_B = find_model("slowfast-7b-64f")


@pytest.mark.parametrize("quantization", [QuantizationName.NONE, QuantizationName.FOUR_BIT])
def test_operations_and_bytes_are_those_of_the_formulas(quantization: QuantizationName) -> None:
    sizes = SEVEN_B.architecture
    seeing, _, prefill, token = roofline("slowfast-7b-64f", quantization, num_frames=64, num_text=50)
    prompt = prompt_size(sizes, SEVEN_B.fast_tokens, 64, num_text=50)
    assert prefill.flops.total() == pytest.approx(prefill_flops(sizes, prompt, skip_masked=True), rel=0.01)
    weights = decoder_bytes(sizes, 2, quantization)
    assert weights < token.bytes.total() < 1.1 * weights
    assert seeing.launches.total() <= 40 * 64


def test_what_is_computed_twice_as_fast_takes_half_as_long() -> None:
    """Bytes bound a token, operations the vision tower's products."""
    seeing, _, _, token = roofline("slowfast-7b-64f", QuantizationName.NONE, num_frames=8, num_text=50)
    assert token.seconds["RTX 4090"].total() == pytest.approx(token.bytes.total() / 1.0e12, rel=0.01)
    linear = seeing.seconds["RTX 3060"]["linear"]
    assert linear == pytest.approx(seeing.flops["linear"] / 25.6e12, rel=0.2)


def test_the_command_prints_a_table_that_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--frames", "8", "--kinds", "1"])
    printed = capsys.readouterr().out
    assert "| computed, not measured | launches | TFLOP | GB | ms on H200 |" in printed
    assert "| … linear |" in printed
    assert "data sheets, not measured" in printed
