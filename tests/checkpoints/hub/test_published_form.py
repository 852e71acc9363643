"""From the hub to an answer: a checkpoint in the published form, in shards, pulled, loaded by name and asked."""

from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.download import plan_pull, pull
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import ModelSpec
from sfvqa.video import CropMode, SamplingOptions
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, shard
from tests.inference.steps import run
from tests.model.families.published import FAMILIES, save_whole


@pytest.fixture
def commit(hub: FakeHub, spec: ModelSpec, reference_folder: Path, tmp_path: Path) -> str:
    """The reference's form in two shards, pulled over a connection that breaks once."""
    published = shard(reference_folder, tmp_path / "published")
    assert {INDEX, *SHARDS} <= {path.name for path in published.iterdir()}
    assert not (published / "model.safetensors").exists()
    commit = hub.publish_folder(published)
    hub.cuts[SHARDS[1]] = [20_000]
    run(pull(plan_pull(spec)))
    return commit


def test_what_is_pulled_answers_as_the_folder_it_was_published_from(
    commit: str, reference_folder: Path, video_path: Path
) -> None:
    here, there = VideoQA.load("small", device="cpu"), VideoQA.load(reference_folder, device="cpu")
    answer = here.ask(video_path, "What happens?")
    assert answer.text == there.ask(video_path, "What happens?").text != ""
    assert (answer.model, answer.revision) == ("small", commit)
    ours, theirs = here.checkpoint.model.state_dict(), there.checkpoint.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_what_is_pulled_answers_in_fewer_bits(commit: str, video_path: Path, quantization: str) -> None:
    answer = VideoQA.load("small", device="cpu", quantization=quantization).ask(video_path, "What happens?")
    assert answer.text
    assert (answer.revision, answer.settings.quantization) == (commit, quantization)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_video_models_are_pulled_with_all_that_they_are_asked_by(
    hub: FakeHub, spec: ModelSpec, family: str, video_path: Path, tmp_path: Path
) -> None:
    """Their templates and pixels are described in files beside the tokenizer's."""
    save_whole(family, tmp_path / "published")
    hub.publish_folder(shard(tmp_path / "published", tmp_path / "shards"))
    run(pull(plan_pull(spec)))
    answers = []
    for model in ("small", tmp_path / "published"):
        qa = VideoQA.load(model, device="cpu")
        encoded = qa.encode(video_path, SamplingOptions(num_frames=5), crop=CropMode.SQUASH)
        answers.append(qa.ask(encoded, "What happens?", GenerationOptions(max_new_tokens=12)).text)
    assert answers[0] == answers[1]
