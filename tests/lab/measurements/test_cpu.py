"""The commands that measure the CPU: every way of computing beside its floor, and a trained decoder's words."""

import json
from pathlib import Path

import pytest
import torch

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference.prefill import prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.measurements import cpu, decoder
from sfvqa.model import SlowFastForConditionalGeneration

VIDEO = str(load_demo_videos()[0].path)


@pytest.fixture(scope="module")
def model() -> SlowFastForConditionalGeneration:
    return VideoQA.load("tiny", device="cpu", dtype="float32").checkpoint.model


@pytest.mark.slow
@pytest.mark.lab
def test_the_table_has_every_way_and_says_how_far_from_its_floor_each_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--models", "bench-0.5b", "--video", VIDEO, "--frames", "2", "--repeats", "1", "--new-tokens", "2"]
    cpu.main([*flags, "--json", str(tmp_path / "figures.json")])
    profiles = json.loads((tmp_path / "figures.json").read_text())["profiles"]
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["float32", "bfloat16", "bfloat16, 8bit"]
    errors = [line.split(" | ")[-1].strip(" |") for line in lines]
    assert errors[0] == ""
    assert all(0 < float(error.rstrip("%")) < 10 for error in errors[1:])
    for line, profile in zip(lines, profiles.values(), strict=True):
        (point,) = profile["points"]
        ratio = point["prefill_seconds"] / point["floors"]["prefill_seconds"]
        assert f"({ratio:.1f} ×)" in line.split(" | ")[3]


@pytest.mark.lab
def test_perplexity_is_that_of_the_chances_step_by_step(model: SlowFastForConditionalGeneration) -> None:
    ids = [5, 9, 40, 41, 7, 12]
    surprises = [
        -prefill(model, [ids[:length]], None).logits[0].log_softmax(-1)[ids[length]] for length in range(1, len(ids))
    ]
    assert decoder.perplexity(model, ids) == pytest.approx(float(torch.stack(surprises).mean().exp()), rel=1e-4)


@pytest.mark.lab
def test_the_speed_of_a_token_leaves_the_prompt_out(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 6.0, 7.5, 100.0, 103.0, 104.0, 105.0])  # two runs: a start, a first token, two more
    monkeypatch.setattr("sfvqa.lab.measurements.decoder.time.perf_counter", lambda: next(clock))
    took = decoder.speed(model, [5, 9, 40], num_tokens=2, repeats=2)
    assert (took.prefill_seconds, took.token_seconds) == (4.0, 1.0)
