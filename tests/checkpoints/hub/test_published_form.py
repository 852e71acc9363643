"""From the hub to an answer: a checkpoint in the published form, in shards, pulled, loaded by name and asked."""

from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.download import plan_pull, pull
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import ModelSpec
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, shard
from tests.inference.steps import run


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
