"""From the hub to an answer: a checkpoint in the published form, in shards, pulled, loaded by name and asked."""

from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.download import check_folder, plan_pull, pull
from sfvqa.checkpoints.find import locate
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.registry import ModelSpec
from sfvqa.video import CropMode, SamplingOptions
from tests.checkpoints.hub.fake_hub import FakeHub
from tests.checkpoints.hub.published import INDEX, SHARDS, shard
from tests.inference.steps import run
from tests.model.families.published import FAMILIES, NOT_WANTED, save_whole


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


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_video_models_come_whole_over_a_broken_connection_and_are_asked_without_one(
    hub: FakeHub,
    spec: ModelSpec,
    family: str,
    sharded: bool,
    video_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With what they are asked by, which is in files beside the tokenizer's, and nothing that transformers leaves."""
    folder = tmp_path / "published"
    save_whole(family, folder, sharded=sharded)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (INDEX in files) is sharded
    commit = hub.publish(files | NOT_WANTED)
    largest = max((name for name in files if name.endswith(".safetensors")), key=lambda name: len(files[name]))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 12)
    hub.cuts[largest] = [20_000]
    run(pull(plan_pull(spec)))
    first, second = hub.of(f"/storage/{commit}/{largest}")
    assert (first.sent_bytes, second.sent_bytes) == (20_000, len(files[largest]) - second.range_start)
    assert 20_000 - (1 << 12) < second.range_start <= 20_000
    here = locate("small").folder
    assert {path.name: path.read_bytes() for path in here.iterdir()} == files
    assert not [check.fault for check in run(check_folder(here))[1] if check.fault]
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    answers = []
    for model in ("small", folder):
        qa = VideoQA.load(model, device="cpu")
        encoded = qa.encode(video_path, SamplingOptions(num_frames=5), crop=CropMode.SQUASH)
        drawn = GenerationOptions(max_new_tokens=12, temperature=1.0, seed=1)  # the likeliest token may be the end
        answers.append(qa.ask(encoded, "What happens?", drawn))
    assert answers[0].text == answers[1].text != ""
    assert (answers[0].model, answers[0].revision) == ("small", commit)
    assert not hub.requests
