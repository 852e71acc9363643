"""A run that is validated: what is held out, what is measured, which state is the result, when it stops."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfvqa.training.finetune import fine_tune
from sfvqa.training.options import FineTuning
from sfvqa.training.validation import read_figures
from sfvqa.video.readers import ReadOptions
from tests.training.flash_videos import NUM_FRAMES, write_flash_videos
from tests.training.test_finetuning import load, losses, make_converted

HERE = ReadOptions(isolated=False, num_threads=1)
SHORT = FineTuning(num_frames=NUM_FRAMES, batch_size=2, num_steps=6, log_every=1, save_every=2, device="cpu")
VALIDATED = replace(SHORT, validation="0.4", learning_rate=1e-2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    annotations, entries = write_flash_videos(tmp_path_factory.mktemp("videos") / "v", 8, seed=0)
    more = [{"from": "human", "value": "And when?"}, {"from": "gpt", "value": "Early."}]
    for entry in entries[::2]:
        entry["conversations"] += more
    annotations.write_text(json.dumps(entries))
    return annotations


def measured(run: Path) -> list[dict[str, float]]:
    states = sorted(run.glob("checkpoint-*/trainer_state.json"), key=lambda path: len(path.read_text()))
    return [entry for entry in json.loads(states[-1].read_text())["log_history"] if "eval_loss" in entry]


def test_a_stopped_run_that_is_validated_goes_on_bit_for_bit(model: Path, videos: Path, tmp_path: Path) -> None:
    def run(folder: Path, *, resume: bool = False) -> Path:
        return fine_tune(model, videos, videos.parent, folder, VALIDATED, resume=resume)

    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint")
    for state in sorted((tmp_path / "stopped").glob("checkpoint-*"))[1:]:
        shutil.rmtree(state)
    resumed = run(tmp_path / "stopped", resume=True)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert measured(tmp_path / "stopped") == measured(tmp_path / "whole")
    assert read_figures(tmp_path / "stopped") == read_figures(tmp_path / "whole")
    ours, same = load(resumed).state_dict(), load(whole).state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in ours)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_measuring_changes_nothing_that_is_learned(
    model: Path, videos: Path, tmp_path: Path, precision: str, num_workers: int
) -> None:
    """Reading ahead drew from torch's random state."""
    entries = json.loads(videos.read_text())
    for name, part in (("learned", entries[:5]), ("held-out", entries[5:])):
        (videos.parent / f"{name}.json").write_text(json.dumps(part))
    chosen = replace(SHORT, precision=precision, num_workers=num_workers, learning_rate=1e-2)
    annotations = videos.parent / "learned.json"
    fine_tune(model, annotations, videos.parent, tmp_path / "without", chosen)
    held_out = replace(chosen, validation=str(videos.parent / "held-out.json"))
    fine_tune(model, annotations, videos.parent, tmp_path / "with", held_out)
    assert losses(tmp_path / "with") == losses(tmp_path / "without")
    assert [entry["step"] for entry in measured(tmp_path / "with")] == [2, 4, 6]
