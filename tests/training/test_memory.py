"""What a dry run says: the weights are those of the model, and less is said to be needed by what needs less."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.errors import ExitCode, UsageError
from sfvqa.model.quantization import weight_bytes
from sfvqa.training.annotations import read_annotations
from sfvqa.training.finetune import dry_run, main
from sfvqa.training.learning import prepare
from sfvqa.training.memory import TrainingMemory, largest_batch
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rows import DialogueWriter
from tests.training.flash_videos import NUM_FRAMES
from tests.training.test_finetuning import make_converted, videos

__all__ = ["videos"]  # a fixture

Estimate = Callable[[FineTuning], TrainingMemory]
ALL = FineTuning(num_frames=NUM_FRAMES, batch_size=2, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "qwen2", hidden_size=64, intermediate_size=512)


@pytest.fixture
def estimate(model: Path, videos: Path) -> Estimate:
    def estimated(options: FineTuning) -> TrainingMemory:
        return dry_run(model, videos, videos.parent, options)

    return estimated


@pytest.mark.parametrize(
    "options",
    [
        ALL,
        replace(ALL, stage=Stage.BRIDGE, precision="bfloat16"),
        replace(ALL, lora_rank=4),
        replace(ALL, lora_rank=4, quantization="4bit", precision="bfloat16"),
    ],
)
def test_weights_take_what_the_prepared_model_holds(estimate: Estimate, model: Path, options: FineTuning) -> None:
    loaded = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32", quantization=options.quantization))
    prepare(loaded.model, loaded.location.folder, options)
    said = estimate(options)
    assert said.weights_bytes == pytest.approx(weight_bytes(loaded.model), rel=0.02)
    num_learned = sum(parameter.numel() for parameter in loaded.model.parameters() if parameter.requires_grad)
    assert said.optimizer_bytes == 8 * num_learned


def test_what_saves_memory_is_said_to(estimate: Estimate) -> None:
    whole = estimate(ALL)
    assert estimate(replace(ALL, gradient_checkpointing=True)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, batch_size=1)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, num_frames=2)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, freeze_vision=True)).step_bytes < whole.step_bytes
    assert estimate(replace(ALL, optimizer="adamw_bnb_8bit")).optimizer_bytes == whole.optimizer_bytes / 4
    stage_1 = estimate(replace(ALL, stage=Stage.BRIDGE))
    assert stage_1.optimizer_bytes < whole.optimizer_bytes / 2
    assert stage_1.step_bytes < whole.step_bytes
    lora = estimate(replace(ALL, lora_rank=4))
    assert estimate(replace(ALL, lora_rank=4, quantization="4bit")).weights_bytes < lora.weights_bytes


def test_the_gradients_of_all_weights_are_part_of_a_step(estimate: Estimate) -> None:
    whole = estimate(ALL)
    assert whole.step_bytes > whole.weights_bytes


def test_the_longest_row_of_a_mixed_batch_may_be_text(videos: Path, model: Path) -> None:
    """Then nothing was counted of the videos beside it."""
    loaded = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32"))
    writer = DialogueWriter(loaded.tokenizer, loaded.end_token_ids, loaded.model.config.family)
    about_video = read_annotations(videos, videos.parent)[0]
    long = replace(about_video, video=None, turns=(("word " * 500, "word"),))
    both = largest_batch([about_video, long], writer, loaded.model.config, 2, NUM_FRAMES)
    alone = largest_batch([long], writer, loaded.model.config, 2, NUM_FRAMES)
    assert (alone.num_frames, both.num_frames) == (0, NUM_FRAMES)
    assert both.length == alone.length


def test_a_dry_run_of_what_trains_nothing_says_so(estimate: Estimate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.training.learning.choose_learned", lambda model, *_, **__: model.requires_grad_(False))
    with pytest.raises(UsageError, match="no slow path"):
        estimate(replace(ALL, stage=Stage.BRIDGE))


def test_the_command_says_whether_it_fits(
    model: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    arguments = [str(videos), "--videos", str(videos.parent), "--model", str(model), "--output", str(run), "--dry-run"]
    arguments += ["--num-frames", str(NUM_FRAMES), "--device", "cpu"]
    monkeypatch.setattr("sfvqa.training.memory.free_memory_bytes", lambda _device: 10**12)
    assert main(arguments) == ExitCode.OK
    assert "gradients and activations" in capsys.readouterr().out
    monkeypatch.setattr("sfvqa.training.memory.free_memory_bytes", lambda _device: 10**6)
    assert main(arguments) == ExitCode.OUT_OF_MEMORY
    assert "does not fit" in capsys.readouterr().err
    assert not run.exists()
