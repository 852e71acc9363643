"""How often a batch answers otherwise: what is compared, and that it is what VideoQA would answer."""

import json
from pathlib import Path

import pytest
import torch

from sfvqa.cli.demo import load_demo_videos
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.measurements import batch_rounding
from sfvqa.lab.measurements.batch_rounding import Parting, Written

ONE = Written([2, 0, 1], torch.tensor([[0.0, 1.0, 5.0], [3.0, 2.5, 0.0], [0.0, 9.0, 0.0]]))


def test_answers_are_compared_up_to_the_first_other_token() -> None:
    other = Written([2, 1], torch.tensor([[0.0, 1.25, 5.0], [2.5, 2.75, 0.0]]))
    assert Parting.of(ONE, other) == Parting((0.25, 0.5), margin=0.5)


def test_same_tokens_have_no_margin() -> None:
    assert Parting.of(ONE, Written(ONE.token_ids, ONE.logits + 0.125)) == Parting((0.125,) * 3, margin=None)


def test_what_is_compared_is_what_would_be_answered() -> None:
    tiny, options = VideoQA.load("tiny", device="cpu"), GenerationOptions(max_new_tokens=12)
    video = tiny.encode(load_demo_videos()[0].path)
    asked = [(video, "Which digit is shown?"), (video, "Describe the video.")]
    written = batch_rounding.write_together(tiny, asked, options)
    texts = [tiny.checkpoint.tokenizer.decode(each.token_ids, skip_special_tokens=True) for each in written]
    assert texts == [answer.text for answer in tiny.answer_batch(asked, options)]
    assert all(each.logits.argmax(dim=1).tolist() == each.token_ids for each in written)


@pytest.mark.slow
def test_the_table_has_a_row_for_each_dtype_and_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--questions", "6", "--sizes", "2", "4", "--frames", "8", "--new-tokens", "8"]
    batch_rounding.main([*flags, "--json", str(tmp_path / "figures.json")])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        [f"| `tiny`, {dtype}", size] for dtype in ("float32", "bfloat16") for size in ("2", "4")
    ]
    figures = json.loads((tmp_path / "figures.json").read_text())["comparisons"]
    assert [each["num_questions"] for each in figures] == [6] * 4
    assert all(each["largest_difference"] < 1e-3 and not each["num_other"] for each in figures[:2])
    assert all(1e-3 < each["largest_difference"] < 1 for each in figures[2:])
