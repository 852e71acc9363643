"""The model that the package carries is the one models.toml describes, and loads through the path of every other."""

import re

import pytest

from sfvqa.checkpoints.find import WEIGHTS
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import find_model

MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def tiny() -> VideoQA:
    return VideoQA.load("tiny", device="cpu")


def test_the_entry_in_the_registry_is_true(tiny: VideoQA) -> None:
    spec, location = find_model("tiny"), tiny.checkpoint.location
    assert location.spec == spec
    assert spec.num_frames == tiny.checkpoint.model.config.training_num_frames
    size = (location.folder / WEIGHTS).stat().st_size
    assert spec.size_bytes == pytest.approx(size, rel=0.05)


def test_the_folder_is_whole_and_small(tiny: VideoQA) -> None:
    files = [file for file in tiny.checkpoint.location.folder.rglob("*") if file.is_file()]
    assert {"config.json", "generation_config.json", WEIGHTS, "tokenizer.json"} <= {file.name for file in files}
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES


def test_its_revision_tells_one_training_from_another(tiny: VideoQA) -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", tiny.checkpoint.revision or "")


def test_it_answers_in_sentences_that_end(tiny: VideoQA) -> None:
    answer = tiny.ask(None, "What is the capital of France?")
    assert (answer.model, answer.finish_reason) == ("tiny", "stop")
    assert answer.text.endswith(".")
