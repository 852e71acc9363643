"""From the hub to an answer: a checkpoint in the published form, in shards, pulled, loaded by name and asked."""

from pathlib import Path

import torch

from sfvqa.inference.hub.pull import plan_pull, pull
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import ModelSpec
from tests.inference.hub.fake_hub import FakeHub
from tests.inference.hub.published import INDEX, SHARDS, run, shard


def test_what_is_pulled_answers_as_the_folder_it_was_published_from(
    hub: FakeHub, spec: ModelSpec, reference_folder: Path, video_path: Path, tmp_path: Path
) -> None:
    published = shard(reference_folder, tmp_path / "published")
    assert {INDEX, *SHARDS} <= {path.name for path in published.iterdir()}
    assert not (published / "model.safetensors").exists()
    commit = hub.publish_folder(published)
    hub.cuts[SHARDS[1]] = [20_000]
    run(pull(plan_pull(spec)))

    here, there = VideoQA.load("small", device="cpu"), VideoQA.load(reference_folder, device="cpu")
    answer = here.ask(video_path, "What happens?")
    assert answer.text == there.ask(video_path, "What happens?").text != ""
    assert (answer.model, answer.revision) == ("small", commit)
    ours, theirs = here.checkpoint.model.state_dict(), there.checkpoint.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
