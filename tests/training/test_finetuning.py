"""The recipe: what learns, what a batch's loss is, going on where a run stopped, and a converted model that learns."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainingArguments

from sfvqa.checkpoints.device import resolve_device
from sfvqa.checkpoints.known import TrainedWith, read_trained_with
from sfvqa.checkpoints.memory import gigabytes
from sfvqa.checkpoints.plan import config_of
from sfvqa.errors import OutOfMemoryError, SfvqaError, UnknownModelError, UsageError
from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.registry import find_model
from sfvqa.training import finetune, learning
from sfvqa.training.convert import ConversionOptions, VisionSource, convert
from sfvqa.training.finetune import fine_tune, main
from sfvqa.training.learning import choose_learned, keep_frozen_in
from sfvqa.training.memory import training_bytes
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import collate, num_fast_tokens
from sfvqa.training.trainer import VideoTrainer
from sfvqa.training.validation import read_figures
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy
from tests.model.decoders import SIZES
from tests.training.flash_videos import NUM_FRAMES, QUESTION, write_flash_videos
from tests.training.plain_decoder import save_plain_decoder

LEARNER = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "max_position_embeddings": 1024}
OPTIONS = ConversionOptions(hybrid_layers=(0, 1), min_fast_frames=2, temporal_stride=2)
SHORT = FineTuning(num_frames=NUM_FRAMES, batch_size=2, num_steps=4, log_every=1, save_every=2, device="cpu")
CUDA_TOLERANCE = 1e-3  # of a loss, relative
HERE = ReadOptions(isolated=False, num_threads=1)


def make_converted(folder: Path, family: str, **fields: Any) -> Path:
    """A random decoder with the bundled model's eyes."""
    decoder = {**SIZES, **LEARNER, **fields, "model_type": family, "initializer_range": 0.05}
    if family == "mistral":
        decoder["sliding_window"] = None
    if family == "qwen3":
        decoder["head_dim"] = 24
    convert(save_plain_decoder(folder / "plain", decoder, wide=False), VisionSource.of("tiny"), folder / "it", OPTIONS)
    return folder / "it"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    annotations, entries = write_flash_videos(tmp_path_factory.mktemp("videos") / "v", 8, seed=0)
    more = [{"from": "human", "value": "And when?"}, {"from": "gpt", "value": "Early."}]
    entries[0]["conversations"] += more  # rows of unlike length
    entries.append({"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]})
    annotations.write_text(json.dumps(entries))
    return annotations


def load(folder: Path) -> SlowFastForConditionalGeneration:
    return SlowFastForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("num_frames", [1, 2, 5])
def test_a_row_has_a_place_for_each_fast_token(model: Path, num_frames: int) -> None:
    """An only frame, which is not pooled, has more of them than two."""
    seeing = load(model)
    side = seeing.config.vision.image_size
    with torch.inference_mode():
        seen = seeing.encode_video(torch.zeros(num_frames, 3, side, side))
    assert num_fast_tokens(num_frames, seeing.config) == len(seen.fast)


def losses(run: Path) -> list[float]:
    states = sorted(run.glob("checkpoint-*/trainer_state.json"), key=lambda path: len(path.read_text()))
    return [entry["loss"] for entry in json.loads(states[-1].read_text())["log_history"] if "loss" in entry]


def changed(before: Path, after: Path) -> set[str]:
    """The parts of the network that training changed."""
    old, new = load(before).state_dict(), load(after).state_dict()
    return {_part(name) for name in old if not torch.equal(old[name], new[name])}


def _part(name: str) -> str:
    return "slow attention" if ".slow_attention." in name else name.split(".")[0]


def test_a_stopped_run_goes_on_to_the_very_same_losses_and_weights(
    model: Path, videos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(folder: Path, *, resume: bool = False) -> Path:
        return fine_tune(model, videos, videos.parent, folder, SHORT, resume=resume)

    run(tmp_path / "stopped")
    shutil.copytree(tmp_path / "stopped", tmp_path / "whole")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint")
    last = tmp_path / "stopped" / "checkpoint-4"  # as if the run had been ended while it wrote this
    (last / "trainer_state.json").unlink()
    os.truncate(last / "optimizer.pt", (last / "optimizer.pt").stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        resumed = run(tmp_path / "stopped", resume=True)
    assert f"Skipping {last}" in caplog.text
    assert len(losses(tmp_path / "whole")) == 4
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    ours, same = load(resumed).state_dict(), load(tmp_path / "whole" / "checkpoint").state_dict()
    assert all(torch.equal(ours[name], same[name]) for name in ours)
    assert load(tmp_path / "whole" / "checkpoint").config.training_num_frames == NUM_FRAMES


def test_a_run_that_was_over_when_it_was_stopped_learns_no_more(model: Path, videos: Path, tmp_path: Path) -> None:
    """Killed before its result was written, it once took a step more, unless it ended where an epoch did."""
    chosen = replace(SHORT, num_steps=3, learning_rate=1e-2)  # of five steps an epoch
    whole = fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    before, expected = losses(tmp_path / "run"), load(whole).state_dict()
    shutil.rmtree(whole)
    again = load(fine_tune(model, videos, videos.parent, tmp_path / "run", chosen, resume=True)).state_dict()
    assert losses(tmp_path / "run") == before
    assert not (tmp_path / "run" / "checkpoint-4").exists()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_a_run_goes_on_saving_and_logging_as_often_as_it_is_told_now(model: Path, videos: Path, tmp_path: Path) -> None:
    """Trainer goes on as often as before, and once said nothing of it."""
    run = tmp_path / "run"
    fine_tune(model, videos, videos.parent, run, replace(SHORT, num_steps=6))
    for state in ("checkpoint", "checkpoint-6"):
        shutil.rmtree(run / state)
    changed = replace(SHORT, num_steps=6, save_every=1, log_every=2)
    fine_tune(model, videos, videos.parent, run, changed, resume=True)
    assert {path.name for path in run.glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-6"}
    logged = json.loads((run / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in logged if "loss" in entry] == [1, 2, 3, 4, 6]


@pytest.mark.cuda
@pytest.mark.slow
def test_on_a_gpu_a_stopped_run_goes_on_to_nearly_the_same_losses(model: Path, videos: Path, tmp_path: Path) -> None:
    """Kernels there add in no fixed order, so that not even two whole runs need have the very same losses."""
    assert torch.cuda.is_available()
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--num-frames", str(NUM_FRAMES)]
    arguments += ["--num-steps", "8", "--save-every", "4", "--log-every", "1", "--batch-size", "2"]
    one_gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]

    def run(folder: Path, *more: str) -> list[float]:
        command = [sys.executable, "-m", "sfvqa.training.finetune", *arguments, "--output", str(folder), *more]
        subprocess.run(command, check=True, env=os.environ | {"CUDA_VISIBLE_DEVICES": one_gpu})
        return losses(folder)

    whole, _ = run(tmp_path / "whole"), run(tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoint-8")
    resumed = run(tmp_path / "stopped", "--resume")
    assert len(resumed) == len(whole) == 8
    torch.testing.assert_close(torch.tensor(resumed), torch.tensor(whole), rtol=CUDA_TOLERANCE, atol=0)


def test_a_stage_changes_what_it_should_and_no_more(model: Path, videos: Path, tmp_path: Path) -> None:
    def parts(name: str, **options: Any) -> set[str]:
        chosen = replace(SHORT, learning_rate=1e-2, **options)
        return changed(model, fine_tune(model, videos, videos.parent, tmp_path / name, chosen))

    bridge = {"projector", "slow attention"}
    assert parts("bridge", stage=Stage.BRIDGE) == bridge
    assert parts("frozen", freeze_vision=True, gradient_checkpointing=True) == bridge | {"language_model", "lm_head"}
    assert parts("all") == bridge | {"language_model", "lm_head", "vision_tower"}


@pytest.mark.parametrize("precision", [pytest.param("bfloat16", marks=pytest.mark.slow), "float32"])
def test_precision_checkpointing_and_reading_ahead_change_the_loss_little(
    model: Path, videos: Path, tmp_path: Path, precision: str
) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    fine_tune(model, videos, videos.parent, plain, SHORT)
    chosen = replace(SHORT, precision=precision, gradient_checkpointing=True, num_workers=1)
    fine_tune(model, videos, videos.parent, other, chosen)
    tolerance = 0.02 if precision == "bfloat16" else 1e-5
    torch.testing.assert_close(torch.tensor(losses(other)), torch.tensor(losses(plain)), rtol=tolerance, atol=tolerance)


@pytest.fixture
def rounded(model: Path, tmp_path: Path) -> Path:
    """A checkpoint stored in bfloat16, as the published ones are."""
    shutil.copytree(model, folder := tmp_path / "rounded", ignore=shutil.ignore_patterns("*.safetensors*"))
    SlowFastForConditionalGeneration.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stage": Stage.BRIDGE}, marks=pytest.mark.slow, id="bridge"),
        pytest.param({"freeze_vision": True}, id="frozen eyes"),
    ],
)
def test_frozen_weights_in_bfloat16_change_no_loss(
    rounded: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Autocast made them so at each use."""
    chosen = replace(SHORT, precision="bfloat16", learning_rate=1e-2, **options)
    fine_tune(rounded, videos, videos.parent, tmp_path / "kept", chosen)
    monkeypatch.setattr(learning, "keep_frozen_in", lambda *_: None)
    fine_tune(rounded, videos, videos.parent, tmp_path / "cast", chosen)
    assert losses(tmp_path / "kept") == losses(tmp_path / "cast")


def test_the_fused_optimizer_takes_the_steps_of_the_plain_one(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(SHORT, learning_rate=1e-2)
    fine_tune(model, videos, videos.parent, tmp_path / "fused", chosen)

    def plain(**arguments: Any) -> TrainingArguments:
        return TrainingArguments(**arguments | {"optim": "adamw_torch"})

    monkeypatch.setattr(finetune, "TrainingArguments", plain)
    fine_tune(model, videos, videos.parent, tmp_path / "plain", chosen)
    fused, expected = (torch.tensor(losses(tmp_path / name)) for name in ("fused", "plain"))
    torch.testing.assert_close(fused, expected, rtol=1e-5, atol=0)


def test_what_bfloat16_rounds_is_written_as_it_was(model: Path, videos: Path, tmp_path: Path) -> None:
    """The checkpoint's own weights are float32; a run in bfloat16 must not cost those that did not learn."""
    chosen = replace(SHORT, precision="bfloat16", stage=Stage.BRIDGE, learning_rate=1e-2)
    result = fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    assert changed(model, result) == {"projector", "slow attention"}


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("bfloat16", {"stage": Stage.BRIDGE}),
        ("float32", {}),
        pytest.param("bfloat16", {"freeze_vision": True}, marks=pytest.mark.slow),
        pytest.param("float32", {"freeze_vision": True}, marks=pytest.mark.slow),
        pytest.param("float32", {"stage": Stage.BRIDGE}, marks=pytest.mark.slow),
        pytest.param("bfloat16", {}, marks=pytest.mark.slow),
    ],
)
def test_a_step_holds_the_memory_that_is_said(
    model: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    options: dict[str, Any],
) -> None:
    """Counted are all tensors of model and optimizer before a step's gradients are gone."""
    held, said = list[int](), list[int]()

    class Counter(TrainerCallback):
        def on_optimizer_step(self, *_: Any, **given: Any) -> None:
            model, optimizer = given["model"], given["optimizer"]
            tensors = list(model.parameters())
            tensors += [tensor.grad for tensor in tensors if tensor.grad is not None]
            tensors += [part for one in optimizer.state.values() for part in one.values()]
            held.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
            said.append(training_bytes(model, SHORT.optimizer))

    class Counted(VideoTrainer):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments | {"callbacks": [Counter()]})

    monkeypatch.setattr(finetune, "VideoTrainer", Counted)
    chosen = replace(SHORT, precision=precision, num_steps=2, **options)
    with caplog.at_level(logging.INFO):
        fine_tune(model, videos, videos.parent, tmp_path / "run", chosen)
    assert held == said
    assert f"; {gigabytes(said[0])} before activations" in caplog.text


@pytest.mark.parametrize(
    ("stage", "precision", "expected"),
    [(Stage.BRIDGE, None, "34.5 GB"), (Stage.BRIDGE, torch.bfloat16, "17.5 GB"), (Stage.ALL, torch.bfloat16, "136 GB")],
)
def test_the_readme_says_what_the_published_model_takes(
    stage: Stage, precision: torch.dtype | None, expected: str
) -> None:
    """Every parameter of the full size is counted; none has a value."""
    with torch.device("meta"):
        published = SlowFastForConditionalGeneration(config_of(find_model("slowfast-7b-64f")))
    choose_learned(published, stage)
    if precision is not None:
        keep_frozen_in(published, precision)
    assert gigabytes(training_bytes(published, SHORT.optimizer)).replace(".0 GB", " GB") == expected
    assert expected in (Path(finetune.__file__).parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.skipif(resolve_device().type != "cpu", reason="is about a machine without a GPU")
def test_bfloat16_is_computed_on_the_cpu_where_there_is_no_gpu(model: Path, videos: Path, tmp_path: Path) -> None:
    """The README's own command, which leaves the device open, ended in a traceback of Trainer's."""
    chosen = replace(SHORT, precision="bfloat16", device="auto", num_steps=1)
    assert (fine_tune(model, videos, videos.parent, tmp_path / "run", chosen) / "config.json").is_file()


def test_a_batchs_gradient_is_that_of_its_rows_however_they_are_padded(model: Path) -> None:
    """Weighed by the tokens each row learns, as one step sees them over several batches."""
    generator = torch.Generator().manual_seed(0)
    items = [
        {
            "input_ids": [5, *[-200] * (16 * num_fast if pixels else 0), *range(6, 6 + length)],
            "labels": [-100] * (1 + (16 * num_fast if pixels else 0)) + list(range(6, 6 + length)),
            "pixel_values": torch.randn(num_frames, 3, 64, 64, generator=generator) if pixels else None,
        }
        for length, num_frames, num_fast, pixels in ((9, 4, 2, True), (4, 2, 2, True), (6, 0, 0, False))
    ]
    network = load(model)
    choose_learned(network, Stage.ALL)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("warm_up_gate"):
                parameter.fill_(1.0)
    total = torch.tensor(9 + 4 + 6)

    def gradients(batches: list[list[dict[str, Any]]]) -> tuple[float, dict[str, Tensor]]:
        network.zero_grad()
        loss = sum(network(**collate(batch), num_items_in_batch=total).loss for batch in batches)
        loss.backward()
        return float(loss.detach()), {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}

    together, alone = gradients([items]), gradients([[item] for item in items])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    for name, gradient in together[1].items():
        torch.testing.assert_close(gradient, alone[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_the_result_is_looked_at_as_it_was_trained_until_told_otherwise(
    model: Path, videos: Path, tmp_path: Path
) -> None:
    """Only the number of frames was kept once: `ask`, and a second stage, then looked otherwise without a warning."""
    chosen = replace(SHORT, num_steps=1, num_frames=3, sampling=SamplingStrategy.KEYFRAMES, crop=CropMode.PAD)
    first = fine_tune(model, videos, videos.parent, tmp_path / "first", chosen)
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(first), "--output", str(tmp_path / "2nd")]
    assert main([*arguments, "--num-steps", "1", "--device", "cpu"]) == 0
    trained = TrainedWith(3, SamplingStrategy.KEYFRAMES, CropMode.PAD)
    for folder in (first, tmp_path / "2nd" / "checkpoint"):
        assert read_trained_with(folder) == trained
    qa = VideoQA.load(first, device="cpu")
    assert not qa.encode(videos.parent / "0.mp4", reading=HERE).warnings
    uniform = qa.encode(videos.parent / "0.mp4", SamplingOptions(3), reading=HERE, crop=CropMode.CENTER)
    assert "keyframes sampling (here uniform), padding (here the centre crop)" in " ".join(uniform.warnings)


def test_runs_that_make_no_sense_are_refused(model: Path, videos: Path, tmp_path: Path) -> None:
    def refused(match: str, error: type[SfvqaError] = UsageError, *, resume: bool = False, **options: Any) -> None:
        with pytest.raises(error, match=match):
            fine_tune(model, videos, videos.parent, tmp_path / "run", replace(SHORT, **options), resume=resume)

    refused("no saved state", resume=True)
    refused("does not say how many frames", num_frames=None)
    refused("group_by_length has no effect: a batch is one row", group_by_length=True, batch_size=1)
    fine_tune(model, videos, videos.parent, tmp_path / "run", SHORT)
    refused("is not empty")
    refused(r"has num_steps 4 \(now 5\)", resume=True, num_steps=5)
    before = videos.read_text()
    videos.write_text(before + " ")  # other conversations under the same name
    refused("has annotations_sha256", resume=True)
    videos.write_text(before)


def test_a_start_that_failed_does_not_keep_the_folder_from_the_next(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings once were written first: a misspelt model's folder was neither empty nor had a state to go on from."""
    run = tmp_path / "run"
    with pytest.raises(UnknownModelError, match="Did you mean tiny"):
        fine_tune("tinny", videos, videos.parent, run, SHORT)
    bad = tmp_path / "bad.json"
    bad.write_text("{")
    with pytest.raises(UsageError, match="It is not JSON"):
        fine_tune(model, bad, videos.parent, run, SHORT)
    assert not run.exists()

    def runs_out(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patched:
        patched.setattr("transformers.Trainer.train", runs_out)
        with pytest.raises(OutOfMemoryError, match=r"while training.*gradient_checkpointing"):
            fine_tune(model, videos, videos.parent, run, SHORT)
    assert fine_tune(model, videos, videos.parent, run, replace(SHORT, num_steps=1)).is_dir()
    assert json.loads((run / "settings.json").read_text())["num_steps"] == 1


def test_a_run_goes_on_with_the_videos_that_it_began_with(model: Path, videos: Path, tmp_path: Path) -> None:
    """With --skip-unreadable it once went on with whatever could be read by then, and called it the same run."""
    shutil.copytree(videos.parent, folder := tmp_path / "videos")
    (folder / "3.mp4").rename(tmp_path / "3.mp4")
    options = replace(SHORT, skip_unreadable=True)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fine_tune(model, folder / videos.name, folder, whole, options)
    fine_tune(model, folder / videos.name, folder, stopped, options)
    shutil.rmtree(stopped / "checkpoint-4")
    (folder / "5.mp4").rename(tmp_path / "5.mp4")
    with pytest.raises(UsageError, match=r"learned from .*/5\.mp4, now unreadable"):
        fine_tune(model, folder / videos.name, folder, stopped, options, resume=True)
    for name in ("3.mp4", "5.mp4"):
        (tmp_path / name).rename(folder / name)
    fine_tune(model, folder / videos.name, folder, stopped, options, resume=True)
    assert losses(stopped) == losses(whole)


def test_a_row_longer_than_the_model_is_named_before_anything_is_learned(videos: Path, tmp_path: Path) -> None:
    """It was found when it was drawn, hours later; and annotations without it were those of another run."""
    short = make_converted(tmp_path, "qwen2", max_position_embeddings=72)
    long = r"Entry 1 \(0-0\) of \S+ takes 77 tokens, but the model has only 72 positions"
    with pytest.raises(UsageError, match=rf"{long}\. Shorten"):
        fine_tune(short, videos, videos.parent, tmp_path / "run", SHORT)
    assert not list((tmp_path / "run").iterdir())
    # How many scenes a video has is known when it is read: here by another process, whose traceback once was the error.
    scenes = replace(SHORT, sampling=SamplingStrategy.SCENE, num_steps=8, num_workers=1)
    with pytest.raises(UsageError, match=rf"^{long}\. Shorten"):
        fine_tune(short, videos, videos.parent, tmp_path / "scenes", scenes)


def test_a_row_is_as_long_as_its_own_videos_frames_make_it(model: Path, videos: Path, tmp_path: Path) -> None:
    """Of videos with 8 frames no more are taken; 400 would be more tokens than the model has positions."""
    many = replace(SHORT, num_frames=400, num_steps=1)
    result = fine_tune(model, videos, videos.parent, tmp_path / "run", many)
    assert len(losses(tmp_path / "run")) == 1
    assert load(result).config.training_num_frames == 400


@pytest.mark.parametrize(("stage", "complaint"), [("3", "invalid choice: 3"), ("one", "invalid int value: 'one'")])
def test_the_command_says_what_no_stage_is(stage: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["a.json", "--videos", ".", "--model", "tiny", "--output", "run", "--stage", stage])
    assert ended.value.code == 2
    assert f"argument --stage: {complaint}" in capsys.readouterr().err


def test_the_command_trains_and_says_where_the_result_is(
    model: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "my run"
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--output", str(run)]
    arguments += ["--num-steps", "1", "--num-frames", "5", "--device", "cpu", "--stage", "1"]
    with caplog.at_level(logging.INFO):
        assert main(arguments) == 0
    assert f"--model '{run / 'checkpoint'}'`" in capsys.readouterr().out  # as a shell takes it
    assert "No window of the fast tokens holds the last 1 frame of a video" in caplog.text
    assert "Stage 1 leaves out 1 example without a video." in caplog.text
    assert "Stage 1: 8 rows of 8 examples" in caplog.text
    assert main(arguments) == 2
    assert "is not empty" in capsys.readouterr().err


def test_ctrl_c_is_one_sentence(
    model: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.Trainer.train", press)
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--output", str(tmp_path / "run")]
    assert main([*arguments, "--num-frames", "4", "--device", "cpu"]) == 130
    assert "Stopped. --resume goes on from the last saved state" in capsys.readouterr().err


def test_bitsandbytes_is_quiet_before_anything_imports_it() -> None:
    """Which PEFT does: it recommends kernels to those whose CPU has instructions for bfloat16."""
    code = """
import logging, sys, sfvqa.training
print("bitsandbytes" in sys.modules, logging.getLogger("bitsandbytes").isEnabledFor(logging.WARNING))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["convert", "finetune", "merge", "publish"])
def test_nothing_is_said_but_what_the_command_says(command: str) -> None:
    line = [sys.executable, "-m", f"sfvqa.training.{command}", "--help"]
    assert subprocess.run(line, capture_output=True, text=True, check=True, timeout=120).stderr == ""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_it_had_not_been(model: Path, videos: Path, tmp_path: Path) -> None:
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--num-frames", "4"]
    arguments += ["--num-steps", "60", "--save-every", "1", "--log-every", "1", "--device", "cpu"]
    arguments += ["--validation", "0.25"]
    run = [*arguments, "--output", str(tmp_path / "killed")]
    # As many threads as here: where sums are split among more of them, they are rounded otherwise.
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "sfvqa.training.finetune", *run]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not list((tmp_path / "killed").glob("checkpoint-1?")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "killed" / "checkpoint").exists()
    assert main([*run, "--resume"]) == 0
    assert main([*arguments, "--output", str(tmp_path / "whole")]) == 0
    assert len(losses(tmp_path / "whole")) == 60
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    assert read_figures(tmp_path / "killed") == read_figures(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_train_together(model: Path, videos: Path, tmp_path: Path) -> None:
    """As on two GPUs: half a step's rows each, text-only ones among them, give the step of one process."""
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--num-frames", "4"]
    arguments += ["--num-steps", "4", "--save-every", "2", "--log-every", "1", "--device", "cpu"]
    arguments += ["--validation", "0.1"]  # eight rows are left: of an odd one, two processes would see another twice
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "sfvqa.training.finetune"]
    done = subprocess.run(
        [*launch, *arguments, "--output", str(tmp_path / "two"), "--batch-size", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("ask it with") == 1
    assert main([*arguments, "--output", str(tmp_path / "one"), "--batch-size", "2"]) == 0
    two, one = torch.tensor(losses(tmp_path / "two")), torch.tensor(losses(tmp_path / "one"))
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-3)
    for ours, same in zip(*(read_figures(tmp_path / name).values() for name in ("two", "one")), strict=True):
        assert replace(ours, loss=0.0) == replace(same, loss=0.0)
        assert ours.loss == pytest.approx(same.loss, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_a_converted_decoder_learns_which_colour_flashes(family: str, tmp_path: Path) -> None:
    """A decoder that knew nothing answers about videos that it has not seen, through the pipeline of `ask`."""
    model = make_converted(tmp_path, family)
    annotations, _ = write_flash_videos(tmp_path / "train", 96, seed=0)
    _, asked = write_flash_videos(tmp_path / "test", 24, seed=1)

    def share_right(folder: Path) -> float:
        qa, right = VideoQA.load(folder, device="cpu"), 0
        for entry in asked:
            video = qa.encode(tmp_path / "test" / entry["video"], reading=HERE)
            answer = qa.ask(video, QUESTION, GenerationOptions(max_new_tokens=12))
            right += answer.text == entry["conversations"][1]["value"]
        return right / len(asked)

    assert share_right(model) == 0
    options = replace(
        SHORT,
        batch_size=16,
        num_steps=300,
        learning_rate=3e-3,
        warmup_share=0.2,
        freeze_vision=True,
        log_every=20,
        save_every=1000,
    )
    after = share_right(fine_tune(model, annotations, tmp_path / "train", tmp_path / "run", options))
    print(f"{family}: {after:.0%} of {len(asked)} right after {options.num_steps} steps")  # noqa: T201
    assert after >= 0.9
