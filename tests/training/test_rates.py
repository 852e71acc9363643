"""Learning rates by part, and the optimizers that Trainer knows."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.errors import UsageError
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.training.annotations import Example
from sfvqa.training.convert import add_slow_path
from sfvqa.training.finetune import fine_tune, make_trainer
from sfvqa.training.frozen_tower import Looking
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.rates import Part
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from tests.model.families.published import save_whole
from tests.training.test_finetuning import SHORT, losses, make_converted, videos

__all__ = ["videos"]  # a fixture

RATES = {"tower": 1e-5, "bridge": 2e-5, "slow": 3e-5, "decoder": 4e-5}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "llama", hidden_size=32, intermediate_size=48)


def rates_by_part(model: Path, run: Path, **options: Any) -> dict[Part, set[float]]:
    """The learning rates of the groups that the parameters of each part are in."""
    trainer = make_trainer(
        load_checkpoint(ModelSettings(model, device="cpu", dtype="float32")),
        [Example("a", None, (("Hi", "Hi."),))],
        Looking(SamplingOptions(4), CropMode.PAD, ReadOptions()),
        run,
        FineTuning(device="cpu", learning_rate=1e-2, weight_decay=0.1, **options),
        VideoCache(run / "kept", 0),
    )
    optimizer = trainer.create_optimizer()
    assert trainer.model is not None
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    decaying = trainer.get_decay_parameter_names(trainer.model)
    found: dict[Part, set[float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            found.setdefault(Part.of(name), set()).add(group["lr"])
            assert (group["weight_decay"] > 0) == (name in decaying), name
    assert not names
    return found


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2, "lora_tower": True}])
def test_each_part_learns_at_its_own_rate(model: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    own = {f"{part}_learning_rate": rate for part, rate in RATES.items()}
    assert rates_by_part(model, tmp_path, **own, **lora) == {Part(part): {rate} for part, rate in RATES.items()}
    others = {Part(part): {1e-2} for part in RATES} | {Part.SLOW: {3e-5}}
    assert rates_by_part(model, tmp_path, slow_learning_rate=3e-5, **lora) == others


@pytest.mark.parametrize("options", [{"stage": Stage.BRIDGE}, {"lora_rank": 2}], ids=["stage 1", "LoRA"])
def test_a_rate_of_a_part_that_does_not_learn_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """LLaVA-OneVision comes with a trained bridge, and without a slow path; a rate for either was of no use."""
    save_whole("llava_onevision", tmp_path / "base")
    add_slow_path(tmp_path / "base", tmp_path / "slow-fast", num_fast_frames=2, num_slow_frames=4)
    with pytest.raises(UsageError, match="bridge_learning_rate has no effect: nothing of that part learns"):
        rates_by_part(tmp_path / "slow-fast", tmp_path, bridge_learning_rate=1e-4, **options)
    with pytest.raises(UsageError, match="slow_learning_rate has no effect: nothing of that part learns"):
        rates_by_part(tmp_path / "base", tmp_path, slow_learning_rate=1e-4)


@pytest.mark.parametrize(
    "optimizer",
    [
        "adamw_bnb_8bit",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("adamw_torch", "adafactor", "lion_8bit")),
    ],
)
def test_other_optimizers_learn_and_go_on_where_they_stopped(
    model: Path, videos: Path, tmp_path: Path, optimizer: str
) -> None:
    options = replace(SHORT, optimizer=optimizer, learning_rate=1e-3)
    fine_tune(model, videos, videos.parent, tmp_path / "run", options)
    whole = losses(tmp_path / "run")
    for left in ("checkpoint", "checkpoint-4"):
        shutil.rmtree(tmp_path / "run" / left)
    fine_tune(model, videos, videos.parent, tmp_path / "run", options, resume=True)
    assert len(whole) == 4
    assert losses(tmp_path / "run") == whole


def test_an_optimizer_that_is_not_installed_says_what_it_needs(model: Path, videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"grokadamw cannot be used.*[Ii]nstall"):
        fine_tune(model, videos, videos.parent, tmp_path / "run", replace(SHORT, optimizer="grokadamw"))
