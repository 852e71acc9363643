"""Runs on rows of every kind, from several files, grouped by length: what is drawn, and going on where one stopped."""

import json
import logging
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfvqa.errors import UsageError
from sfvqa.training.annotations import Source
from sfvqa.training.finetune import fine_tune, main
from sfvqa.training.options import FineTuning
from tests.training.flash_videos import NUM_FRAMES, write_flash_videos
from tests.training.test_finetuning import load, losses, make_converted

SHORT = FineTuning(
    num_frames=NUM_FRAMES, batch_size=2, num_steps=10, log_every=1, save_every=9, device="cpu", group_by_length=True
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos in LLaVA's form; three pictures and four texts as messages in JSON lines."""
    folder = tmp_path_factory.mktemp("data") / "v"
    write_flash_videos(folder, 8, seed=0)
    rows = []
    for number in range(7):
        asked = {"role": "user", "content": "Why? " * (number + 1)}
        row: dict[str, object] = {"messages": [asked, {"role": "assistant", "content": "No."}]}
        if number < 3:
            pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            row["image"] = f"{number}.png"
        rows.append(row)
    (folder / "more.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def sources(folder: Path) -> list[Source]:
    return [Source(folder / "annotations.json"), Source(folder / "more.jsonl", 2)]


def test_a_stopped_run_goes_on_to_the_very_same_losses_and_weights(
    model: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From the middle of an epoch other than the first: 22 rows are 11 steps, and it stops after 14."""
    options = replace(SHORT, num_steps=16, save_every=14)
    with caplog.at_level(logging.INFO):
        whole = fine_tune(model, sources(folder), folder, tmp_path / "whole", options)
    assert "22 rows of 22 examples" in caplog.text
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for name in ("checkpoint", "checkpoint-16"):
        shutil.rmtree(tmp_path / "stopped" / name)
    resumed = fine_tune(model, sources(folder), folder, tmp_path / "stopped", options, resume=True)
    assert len(losses(tmp_path / "whole")) == 16
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    ours, same = load(resumed).state_dict(), load(whole).state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in ours)


def test_other_files_and_weights_are_another_run(model: Path, folder: Path, tmp_path: Path) -> None:
    options = replace(SHORT, num_steps=1, save_every=1)
    fine_tune(model, sources(folder), folder, tmp_path / "run", options)
    first, second = sources(folder)
    for others in ([first], [second, first], [first, replace(second, weight=1)]):
        with pytest.raises(UsageError, match=r"has annotations .*more\.jsonl:2"):
            fine_tune(model, others, folder, tmp_path / "run", options, resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [[], ["--group-by-length"]], ids=["random order", "grouped"])
def test_two_processes_go_on_in_a_later_epoch(model: Path, folder: Path, tmp_path: Path, grouped: list[str]) -> None:
    """accelerate does not tell the sampler behind a resumed loader which epoch it is."""
    files = [str(source) for source in sources(folder)]
    arguments = [*files, "--videos", str(folder), "--model", str(model), "--num-frames", str(NUM_FRAMES), *grouped]
    arguments += ["--num-steps", "16", "--save-every", "14", "--log-every", "1", "--device", "cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sfvqa.training.finetune"]

    def run(name: str, *more: str) -> list[float]:
        command = [*launch, *arguments, "--batch-size", "1", "--output", str(tmp_path / name), *more]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return losses(tmp_path / name)

    whole = run("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    for name in ("checkpoint", "checkpoint-16"):
        shutil.rmtree(tmp_path / "stopped" / name)
    resumed = run("stopped", "--resume")
    assert len(resumed) == len(whole) == 16
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(whole), rtol=1e-4, atol=1e-4)
    assert main([*arguments, "--batch-size", "2", "--output", str(tmp_path / "one")]) == 0
    torch.testing.assert_close(torch.tensor(losses(tmp_path / "one")), torch.tensor(whole), rtol=1e-3, atol=1e-3)


def test_validation_counts_a_row_once_whatever_it_weighs(
    model: Path, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each of the rows is about something of its own; those of the second file weigh 2."""
    options = replace(SHORT, num_steps=1, save_every=1, validation="0.2")
    with caplog.at_level(logging.INFO):
        fine_tune(model, sources(folder), folder, tmp_path / "run", options)
    held_out = json.loads((tmp_path / "run" / "settings.json").read_text())["held_out"]
    assert f"Validation on {len(held_out)} questions about {len(held_out)} videos" in caplog.text
    weights = [2 if Path(name).suffix != ".mp4" else 1 for name in held_out]
    assert f" {22 - sum(weights)} rows of {22 - sum(weights)} examples" in caplog.text
