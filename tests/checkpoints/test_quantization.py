"""What `--quant` means on a device, and that using it prints nothing."""

import pytest
import torch

from sfvqa.checkpoints.placement import resolve_quantization
from sfvqa.errors import UsageError
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model.quantization import Quantization

CPU = torch.device("cpu")


def test_auto_is_what_the_weights_are_stored_in() -> None:
    for stored in Quantization:
        assert resolve_quantization("auto", CPU, stored) is stored
    assert resolve_quantization("4bit", torch.device("cuda"), Quantization.NONE) is Quantization.FOUR_BIT


@pytest.mark.parametrize(("name", "stored"), [("4bit", "none"), ("8bit", "none"), ("auto", "4bit")])
def test_mps_cannot(name: str, stored: str) -> None:
    """bitsandbytes would fetch kernels from the network there."""
    with pytest.raises(UsageError, match="does not run on mps"):
        resolve_quantization(name, torch.device("mps"), Quantization(stored))
    assert resolve_quantization("none", torch.device("mps"), Quantization.NONE) is Quantization.NONE


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_quantized_model_answers_without_a_word_of_its_own(
    quantization: str, dtype: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """bitsandbytes logged a warning at every layer and token."""
    qa = VideoQA.load("tiny", device="cpu", dtype=dtype, quantization=quantization)
    answer = qa.ask(None, "Which way does the circle move?")
    assert (answer.settings.quantization, answer.settings.device) == (quantization, "cpu")
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []
