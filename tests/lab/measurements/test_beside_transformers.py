"""The command that sets our pipeline beside transformers' classes: the same weights, stages that add up, one table."""

import json
import re
from pathlib import Path

import pytest

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.measurements.beside_transformers import (
    OURS,
    THEIRS,
    Measured,
    Stages,
    main,
    prepare,
    rows_of,
    same_in_transformers,
)

VIDEO = Path(load_demo_videos()[0].path)
TOY = """
[models.toy-{family}]
description = "Of {family}, with random weights."
can_answer = "nothing"
architecture = "toy-{family}"
license = "Apache-2.0"
size_bytes = 1_000_000
num_frames = 5
sampling = "uniform"
crop = "squash"
fast_tokens = {{ temporal_stride = 1, min_fast_frames = 1 }}
training_max_length = 4096
quantization = "none"
memory_hint = "Runs anywhere."

[architectures.toy-{family}]
family = "{family}"
image_size = 64
patch_size = 16
vision_layers = 2
vision_width = 64
vision_intermediate_size = 128
video_pooling_stride = 1
hidden_size = 96
intermediate_size = 192
num_layers = 3
num_attention_heads = 4
num_key_value_heads = 2
vocab_size = 800
max_position_embeddings = 4096
rope_theta = 10_000
tie_word_embeddings = {tied}
hybrid_layers = []
{more}
"""
SMOLVLM = "scale_factor = 2\nhas_qkv_biases = false"


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "models.toml"
    both = [("llava_onevision", "true", ""), ("smolvlm", "false", SMOLVLM)]
    path.write_text("".join(TOY.format(family=family, tied=tied, more=more) for family, tied, more in both))
    monkeypatch.setenv("SFVQA_MODELS", str(path))


@pytest.mark.parametrize("family", ["llava_onevision", "smolvlm"])
def test_both_hold_the_same_tensors_and_none_is_there_twice(family: str) -> None:
    qa = VideoQA.load(f"toy-{family}", device="cpu", dtype="float32", random_weights=True)
    model = qa.checkpoint.model
    theirs = same_in_transformers(model, video_token_id=799)
    held, found = ({tensor.data_ptr() for tensor in of.parameters()} for of in (model, theirs))
    assert found == held
    asked = prepare(qa, VIDEO, None, 4)
    assert asked.pixels.shape == (5, 3, 64, 64)
    assert 799 not in asked.prompt


def test_the_command_says_that_both_write_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    models = ["toy-llava_onevision", "toy-smolvlm"]
    flags = ["--new-tokens", "12", "--dtype", "float32", "--repeats", "2", "--threads", "1"]
    main(["--models", *models, "--video", str(VIDEO), *flags, "--json", str(tmp_path / "figures.json")])
    printed = capsys.readouterr().out
    assert printed.count("all 12, logits ") == 2
    differences = [float(found) for found in re.findall(r"logits within (\S+) \|", printed)]
    assert all(difference < 1e-5 for difference in differences)
    runs = json.loads((tmp_path / "figures.json").read_text())["runs"]
    for name in models:
        for run in (*runs[name][OURS], *runs[name][THEIRS]):
            assert 0 < run["tower_seconds"] + run["prefill_seconds"] < run["ttft_seconds"]
            assert run["token_seconds"] > 0
            assert len(run["token_ids"]) == 12


def test_a_row_has_medians_and_our_share_of_their_time() -> None:
    def run(seconds: float, *token_ids: int) -> Stages:
        return Stages(4 * seconds, 3 * seconds, 8 * seconds, seconds / 10, token_ids)

    qa = VideoQA.load("toy-smolvlm", device="cpu", random_weights=True)
    runs = {THEIRS: [run(1, 5, 6, 7), run(9, 5, 6, 7), run(2, 5, 6, 7)], OURS: [run(1, 5, 6, 8), run(1, 5, 6, 8)]}
    theirs, ours = rows_of("toy-smolvlm", Measured(prepare(qa, VIDEO, 2, 3), runs, largest_difference=0.25))
    assert theirs[1:] == [THEIRS, "8.00 s", "2.00 s", "6.00 s", "16.00 s", "200.0 ms", ""]
    assert ours[1:] == [
        OURS, "4.00 s", "1.00 s", "3.00 s", "8.00 s (0.500 ×)", "100.0 ms (0.500 ×)", "first 2 of 3, logits within 0.2"
    ]  # fmt: skip
