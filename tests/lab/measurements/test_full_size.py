"""The command that stands in for a GPU runs, here on the smallest model."""

import re

import pytest

from sfvqa.lab.measurements.full_size import main


def test_both_parts_are_measured_and_bfloat16_is_near_float32(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--model", "tiny", "--repeats", "1"])
    printed = capsys.readouterr().out
    assert "hybrid layer, 114 prompt and 512 slow tokens" in printed
    assert "vision stage 2, 2 blocks of 96" in printed
    errors = [float(found) for found in re.findall(r"([\d.]+)% \|", printed)]
    assert len(errors) == 2
    assert all(0 < error < 2 for error in errors)
