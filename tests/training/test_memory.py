"""What a dry run says: the weights are those of the model, and less is said to be needed by what needs less."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.checkpoints.host import STATUS
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.checkpoints.quantize import quantize
from sfvqa.errors import ExitCode, UsageError
from sfvqa.model.quantization import weight_bytes
from sfvqa.training.annotations import read_annotations
from sfvqa.training.counted_step import BatchSize, UpdateSize
from sfvqa.training.dry_run import DryRun, dry_run, lighter
from sfvqa.training.finetune import fine_tune, main
from sfvqa.training.learning import keep_frozen_in, prepare
from sfvqa.training.memory import TrainingMemory, largest_of
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import DialogueWriter
from sfvqa.training.trainer import VideoTrainer
from tests.training.flash_videos import NUM_FRAMES
from tests.training.test_finetuning import make_converted, videos

__all__ = ["videos"]  # a fixture

Estimate = Callable[[FineTuning], TrainingMemory]
ALL = FineTuning(num_frames=NUM_FRAMES, batch_size=2, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "qwen2", hidden_size=64, intermediate_size=512)


@pytest.fixture(scope="module")
def whole(model: Path, videos: Path) -> TrainingMemory:
    """Of a run that is asked for no more than `ALL`."""
    return dry_run(model, videos, videos.parent, ALL).memory


@pytest.fixture
def estimate(model: Path, videos: Path) -> Estimate:
    def estimated(options: FineTuning) -> TrainingMemory:
        return dry_run(model, videos, videos.parent, options).memory

    return estimated


@pytest.mark.parametrize(
    "options",
    [
        ALL,
        pytest.param(replace(ALL, stage=Stage.BRIDGE, precision="bfloat16"), marks=pytest.mark.slow),
        pytest.param(replace(ALL, lora_rank=4), marks=pytest.mark.slow),
        replace(ALL, lora_rank=4, quantization="4bit", precision="bfloat16"),
    ],
)
def test_weights_take_what_the_prepared_model_holds(estimate: Estimate, model: Path, options: FineTuning) -> None:
    loaded = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32", quantization=options.quantization))
    prepare(loaded.model, loaded.location.folder, options)
    said = estimate(options)
    assert said.weights_bytes == pytest.approx(weight_bytes(loaded.model), rel=0.02)
    num_learned = sum(parameter.numel() for parameter in loaded.model.parameters() if parameter.requires_grad)
    assert said.optimizer_bytes == pytest.approx(8 * num_learned, rel=1e-3)  # with the number of each one's step


def test_what_saves_memory_is_said_to(estimate: Estimate, whole: TrainingMemory) -> None:
    assert estimate(replace(ALL, gradient_checkpointing=True)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, batch_size=1)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, num_frames=2)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, freeze_vision=True)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, optimizer="adamw_bnb_8bit")).optimizer_bytes < whole.optimizer_bytes / 2
    stage_1 = estimate(replace(ALL, stage=Stage.BRIDGE))
    assert stage_1.optimizer_bytes < whole.optimizer_bytes / 2
    assert stage_1.step_bytes < whole.step_bytes
    lora = estimate(replace(ALL, lora_rank=4))
    assert estimate(replace(ALL, lora_rank=4, quantization="4bit")).weights_bytes < lora.weights_bytes


def test_the_gradients_of_all_weights_are_part_of_a_step(whole: TrainingMemory) -> None:
    assert whole.step_bytes > whole.weights_bytes


def test_the_longest_row_of_a_mixed_batch_may_be_text(videos: Path, model: Path) -> None:
    """Then nothing was counted of the videos beside it."""
    loaded = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32"))
    writer = DialogueWriter(loaded.tokenizer, loaded.end_token_ids, loaded.model.config.family)
    about_video = read_annotations(videos, videos.parent)[0]
    long = replace(about_video, video=None, turns=(("word " * 150, "word"),))
    both = largest_of([about_video, long], writer, loaded.model.config, NUM_FRAMES).rows
    alone = largest_of([long], writer, loaded.model.config, NUM_FRAMES).rows
    assert (alone.num_frames, both.num_frames) == (0, NUM_FRAMES)
    assert both.length == alone.length


def test_a_dry_run_of_what_trains_nothing_says_so(estimate: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.training.learning.choose_learned", lambda model, *_, **__: model.requires_grad_(False))
    with pytest.raises(UsageError, match="no slow path"):
        estimate(replace(ALL, stage=Stage.BRIDGE))


def test_a_second_batch_stands_beside_the_gradients_of_the_first(estimate: Estimate, whole: TrainingMemory) -> None:
    twice = estimate(replace(ALL, accumulation=2))
    num_gradients = whole.optimizer_bytes // 2
    assert 0 < twice.step_bytes - whole.step_bytes <= num_gradients
    assert twice.frames_bytes == 1.5 * whole.frames_bytes  # a batch more, beside the two there were


@pytest.mark.parametrize(
    ("optimizer", "num_bytes"),
    [("adamw_torch_fused", 8), ("adamw_bnb_8bit", 2), ("lion_8bit", 1), ("sgd", 0), ("adagrad", 4)],
)
def test_what_an_optimizer_keeps_is_what_it_makes_itself(optimizer: str, num_bytes: int) -> None:
    size = UpdateSize.of([nn.Parameter(torch.empty(1024, 1024, device="meta"))], optimizer)
    assert size.kept_bytes == pytest.approx(num_bytes * 1024**2, rel=0.03)


def test_an_optimizer_may_pass_through_more_than_it_keeps() -> None:
    size = UpdateSize.of([nn.Parameter(torch.empty(1024, 1024, device="meta"))], "adafactor")
    assert size.kept_bytes < 0.01 * 1024**2 * 4 < 1024**2 * 4 <= size.passing_bytes


def test_an_optimizer_that_is_not_installed_is_said_before_the_run(estimate: Estimate) -> None:
    with pytest.raises(UsageError, match="cannot be used"):
        estimate(replace(ALL, optimizer="galore_adamw"))


def test_validation_and_the_model_to_compare_with_are_phases_of_their_own(
    estimate: Estimate, whole: TrainingMemory
) -> None:
    validated = estimate(replace(ALL, validation="0.5"))
    compared = estimate(replace(ALL, validation="0.5", against_base="tiny"))
    assert (whole.validation_bytes, validated.base_bytes) == (0, 0)
    assert set(compared.phases) == {"training", "validation", "the other model", "loading"}
    assert 0 < validated.validation_bytes < validated.step_bytes
    assert compared.base_bytes > sum(file.stat().st_size for file in locate("tiny").folder.glob("*.safetensors")) / 2


def test_a_whole_checkpoint_is_saved_as_it_was_stored(estimate: Estimate) -> None:
    """Weights that were frozen are float32 again, beside the optimizer: after stage 1 that may be the peak."""
    rounded = estimate(replace(ALL, stage=Stage.BRIDGE, precision="bfloat16"))
    assert rounded.phases["saving"] == rounded.phases["loading"] + rounded.optimizer_bytes
    assert "saving" not in estimate(replace(ALL, stage=Stage.BRIDGE)).phases


def test_rows_that_are_too_long_are_refused_as_in_the_run(model: Path, videos: Path, tmp_path: Path) -> None:
    entries = json.loads(videos.read_text())
    entries[0]["conversations"][0]["value"] += " word" * 2000
    annotations = tmp_path / "long.json"
    annotations.write_text(json.dumps(entries))
    with pytest.raises(UsageError, match="positions"):
        dry_run(model, annotations, videos.parent, ALL)


def test_stage_1_leaves_rows_without_a_video_out_before_any_are_held_out(
    model: Path, videos: Path, tmp_path: Path
) -> None:
    """As the run does: the one video was held out, and nothing was left to learn from."""
    first = json.loads(videos.read_text())[0]
    annotations = tmp_path / "mixed.json"
    text = {"id": "text", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]}
    annotations.write_text(json.dumps([first, text]))
    with pytest.raises(UsageError, match="All examples are about one video"):
        dry_run(model, annotations, videos.parent, replace(ALL, stage=Stage.BRIDGE, validation="0.5"))


def test_a_quantized_checkpoint_is_refused_as_in_the_run(model: Path, videos: Path, tmp_path: Path) -> None:
    """The dry run said what it would take."""
    quantize(model, tmp_path / "it", "8bit", device="cpu")
    for options in (ALL, replace(ALL, lora_rank=4, quantization="4bit")):
        with pytest.raises(UsageError, match="is a quantized checkpoint"):
            dry_run(tmp_path / "it", videos, videos.parent, options)
        with pytest.raises(UsageError, match="is a quantized checkpoint"):
            fine_tune(tmp_path / "it", videos, videos.parent, tmp_path / "run", options)
    quantize(model, tmp_path / "four", "4bit", device="cpu")
    assert dry_run(tmp_path / "four", videos, videos.parent, options).memory.weights_bytes


def test_a_dry_run_says_nothing_of_shares(estimate: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that each process holds the whole model."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UsageError, match="has a share with the recipe fsdp"):
        estimate(ALL)


def test_the_host_of_a_gpu_loads_and_the_gpu_learns(
    estimate: Estimate, whole: TrainingMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfvqa.training.dry_run.resolve_device", lambda _name: torch.device("cuda"))
    there = estimate(ALL)
    assert set(there.phases) == {"training"}
    assert there.step_bytes == whole.step_bytes
    assert there.process_bytes < whole.process_bytes == there.host_process_bytes
    assert there.host_needed_bytes < whole.needed_bytes


def test_what_changes_nothing_that_is_learned_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = [flags for flags, _ in lighter(replace(ALL, batch_size=4, accumulation=2))]
    assert tried[0] == "--batch-size 1 --accumulation 8"
    assert tried[1].endswith("--gradient-checkpointing")
    assert tried[-1].endswith("--lora-rank 16 --quantization 4bit")
    for flags, options in lighter(replace(ALL, stage=Stage.BRIDGE)):
        assert "lora" not in flags
        assert options.stage is Stage.BRIDGE
    monkeypatch.setattr("sfvqa.training.dry_run.find_spec", lambda _name: None)
    assert "lora" not in " ".join(flags for flags, _ in lighter(ALL))  # its estimate would end in an error


def test_a_remedy_is_one_that_the_run_takes(estimate: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    """With LoRA nothing learns at the tower's rate, and no batch of one row is grouped: such remedies were errors."""
    grouped = replace(ALL, group_by_length=True, tower_learning_rate=1e-5)
    monkeypatch.setattr("sfvqa.training.dry_run._fits", lambda _memory: False)
    remedy = DryRun(grouped, BatchSize(2, 1, 1, 1), estimate)._remedy()
    assert "even with --gradient-checkpointing --precision bfloat16: use fewer" in remedy


def test_the_command_says_whether_it_fits(
    model: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--dry-run"]
    arguments += ["--num-frames", str(NUM_FRAMES), "--device", "cpu", "--batch-size", "2"]
    planned = dry_run(model, videos, videos.parent, ALL)
    one_row = planned.estimate(replace(ALL, batch_size=1, accumulation=2))
    needed = {"asked": planned.memory.needed_bytes, "one row": one_row.needed_bytes}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sfvqa.training.dry_run.free_memory_bytes", lambda _device: needed["asked"])
    monkeypatch.setattr("sfvqa.training.dry_run.free_host_bytes", lambda: needed["asked"])
    assert main(arguments) == ExitCode.OK
    said = capsys.readouterr().out
    assert "gradients and activations" in said
    assert said.splitlines()[-1] == "It fits."
    assert needed["one row"] < needed["asked"]
    monkeypatch.setattr("sfvqa.training.dry_run.free_memory_bytes", lambda _device: needed["one row"])
    assert main(arguments) == ExitCode.OUT_OF_MEMORY
    assert "It would with --batch-size 1 --accumulation 2: " in capsys.readouterr().err
    monkeypatch.setattr("sfvqa.training.dry_run.free_memory_bytes", lambda _device: 10**6)
    assert main([*arguments, "--stage", "1"]) == ExitCode.OUT_OF_MEMORY  # for which the fewest remedies are tried
    assert "does not fit, even with --batch-size 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_memory_is_given_back_at_once_while_a_model_learns(
    model: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading a model has malloc keep its blocks: gaps doubled what a step took on the CPU, and held frozen weights."""
    done: list[str] = []
    step, freeze = VideoTrainer.training_step, keep_frozen_in
    monkeypatch.setattr("sfvqa.checkpoints.load.keep_blocks", lambda: done.append("keep"))
    monkeypatch.setattr("sfvqa.training.finetune.return_large_blocks", lambda: done.append("return"))

    def noted(*given: Any) -> Any:
        done.append("step")
        return step(*given)

    def noted_freezing(*given: Any) -> None:
        done.append("freeze")
        freeze(*given)

    monkeypatch.setattr(VideoTrainer, "training_step", noted)
    monkeypatch.setattr("sfvqa.training.learning.keep_frozen_in", noted_freezing)
    options = replace(ALL, num_steps=1, stage=Stage.BRIDGE, precision="bfloat16", validation="0.1", against_base="tiny")
    fine_tune(model, videos, videos.parent, tmp_path / "run", options)
    assert done[:6] == ["keep", "return", "freeze", "keep", "return", "step"]


_TELLING_WHAT_RESTORING_ADDS = r"""
import re, sys
from pathlib import Path
from sfvqa.model.quantization import weight_bytes
from sfvqa.training import finetune

def held_bytes():
    return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])

def restore(model, *given):
    held, rounded = held_bytes(), weight_bytes(model)
    restore_frozen(model, *given)
    print("restoring added", held_bytes() - held, "for", weight_bytes(model) - rounded)

restore_frozen, finetune.restore_frozen = finetune.restore_frozen, restore
sys.exit(finetune.main())
"""


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="only Linux tells what a process holds")
def test_rounded_weights_leave_nothing_behind_when_they_are_restored(videos: Path, tmp_path: Path) -> None:
    """They lay in malloc's heap, which could not shrink: half of them were resident until the end of the run."""
    large = make_converted(tmp_path, "qwen2", hidden_size=1024, intermediate_size=4096, num_hidden_layers=4)
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(large), "--output", str(tmp_path / "run")]
    arguments += ["--num-frames", "2", "--num-steps", "1", "--stage", "1", "--precision", "bfloat16", "--device", "cpu"]
    command = [sys.executable, "-c", _TELLING_WHAT_RESTORING_ADDS, *arguments]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    added, needed = map(int, re.findall(r"restoring added (\d+) for (\d+)", printed)[0])
    assert needed > 10**8
    assert added == pytest.approx(needed, rel=0.1)
