"""LoRA and QLoRA: what learns, what is saved, going on where a run stopped, and the model with what was learned."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sfvqa.checkpoints.adapter import Adapter
from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.errors import CheckpointError
from sfvqa.inference import VideoQA
from sfvqa.inference.engine import GenerationOptions
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.training.finetune import fine_tune
from sfvqa.training.lora import add_lora
from sfvqa.training.merge import main as merge_main
from sfvqa.training.merge import merge
from sfvqa.training.options import FineTuning
from tests.training.flash_videos import NUM_FRAMES, QUESTION
from tests.training.test_finetuning import HERE, SHORT, losses, make_converted, videos

__all__ = ["videos"]  # a fixture

LORA = replace(SHORT, lora_rank=4, learning_rate=1e-2)
FORMS = {
    "LoRA": LORA,
    "QLoRA": replace(LORA, quantization="4bit"),
    "LoRA on the tower": replace(LORA, lora_tower=True),
    "LoRA in bfloat16": replace(LORA, precision="bfloat16"),
    "QLoRA in bfloat16": replace(LORA, precision="bfloat16", quantization="4bit"),
    "QLoRA with gradient checkpointing": replace(LORA, quantization="4bit", gradient_checkpointing=True),
}
ALWAYS = ("LoRA on the tower", "QLoRA in bfloat16")  # with what the others have


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_converted(tmp_path_factory.mktemp("model"), "qwen2", hidden_size=64, intermediate_size=128)


@pytest.fixture(
    scope="module", params=[form if form in ALWAYS else pytest.param(form, marks=pytest.mark.slow) for form in FORMS]
)
def trained(
    request: pytest.FixtureRequest, model: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FineTuning, Path]:
    """A form, and the run of it."""
    run = tmp_path_factory.mktemp("run") / "run"
    fine_tune(model, videos, videos.parent, run, FORMS[request.param])
    return FORMS[request.param], run


def test_a_stopped_run_goes_on_to_the_very_same_losses_and_adapter(
    model: Path, videos: Path, trained: tuple[FineTuning, Path], tmp_path: Path
) -> None:
    form, whole = trained
    stopped = tmp_path / "stopped"
    shutil.copytree(whole, stopped)
    shutil.rmtree(stopped / "adapter")
    shutil.rmtree(stopped / "checkpoint-4")
    resumed = fine_tune(model, videos, videos.parent, stopped, form, resume=True)
    assert len(losses(whole)) == 4
    assert losses(stopped) == losses(whole)
    ours, same = (load_file(folder / "adapter_model.safetensors") for folder in (resumed, whole / "adapter"))
    assert ours.keys() == same.keys()
    assert all(torch.equal(ours[name], same[name]) for name in ours)


def test_all_that_should_learn_does_and_nothing_else_is_saved(model: Path, trained: tuple[FineTuning, Path]) -> None:
    form, run = trained
    before = {f"base_model.model.{name}": tensor for name, tensor in load(model).state_dict().items()}
    after = load_file(run / "adapter" / "adapter_model.safetensors")
    for name, tensor in after.items():
        start = before.get(name)
        assert not torch.equal(tensor, torch.zeros_like(tensor) if start is None else start), name
    parts = {"slow_attention": 0, "projector": 0, "vision_tower": 0, "lora_A": 0, "lora_B": 0}
    for part in parts:
        parts[part] = sum(part in name for name in after)
    assert parts["lora_A"] == parts["lora_B"] >= 2 * 7
    assert parts["slow_attention"] == sum("slow_attention" in name for name in before)
    assert parts["projector"] == sum("projector" in name for name in before)
    assert (parts["vision_tower"] > 0) == form.lora_tower


def load(folder: Path) -> SlowFastForConditionalGeneration:
    return SlowFastForConditionalGeneration.from_pretrained(folder)


def answers(videos: Path, qa: VideoQA) -> list[str]:
    options = GenerationOptions(max_new_tokens=8)
    seen = (qa.encode(videos.parent / f"{number}.mp4", reading=HERE) for number in range(2))
    return [qa.ask(video, QUESTION, options).text for video in seen]


def logits_of(model: SlowFastForConditionalGeneration) -> torch.Tensor:
    """Of a prompt with a video of noise."""
    generator = torch.Generator().manual_seed(0)
    side = model.config.vision.image_size
    with torch.inference_mode():
        seen = model.encode_video(torch.randn(NUM_FRAMES, 3, side, side, generator=generator))
        ids = torch.tensor([[*[-200] * len(seen.fast), 1, 2, 3, 4]])
        ids = ids.masked_fill(ids == -200, _placeholder())
        logits: torch.Tensor = model(input_ids=ids, visual_tokens=[seen]).logits
    return logits


def _placeholder() -> int:
    from sfvqa.model.config import IMAGE_TOKEN_ID

    return IMAGE_TOKEN_ID


def test_it_is_loaded_as_peft_computes_it_and_as_its_merged_folder(
    model: Path, videos: Path, trained: tuple[FineTuning, Path], tmp_path: Path
) -> None:
    """In 4 bits the product is computed beside the weights, otherwise it is merged into what was trained on."""
    peft = pytest.importorskip("peft")
    form, run = trained
    base = load_checkpoint(ModelSettings(model, device="cpu", dtype="float32", quantization=form.quantization))
    torch.manual_seed(1)
    wrapped = add_lora(base.model, base.location.folder, form)
    peft.set_peft_model_state_dict(wrapped, load_file(run / "adapter" / "adapter_model.safetensors"))
    base.model.train(False)
    expected = logits_of(base.model)
    for quant in {"none", form.quantization}:
        ours = VideoQA.load(model, device="cpu", dtype="float32", quantization=quant, adapter=run / "adapter")
        torch.testing.assert_close(logits_of(ours.checkpoint.model), expected, rtol=1e-3, atol=1e-3)
    merged = tmp_path / "merged"
    assert merge(model, run / "adapter", merged) == ()
    whole = VideoQA.load(merged, device="cpu", dtype="float32")
    beside = VideoQA.load(model, device="cpu", dtype="float32", adapter=run / "adapter")
    assert torch.equal(logits_of(whole.checkpoint.model), logits_of(beside.checkpoint.model))
    assert answers(videos, whole) == answers(videos, beside)
    assert whole.default_sampling.num_frames == beside.default_sampling.num_frames == NUM_FRAMES


def test_what_was_learned_in_full_is_merged_in_full(model: Path, videos: Path, tmp_path: Path) -> None:
    """Rounded to the model's 16 bits, slow attention would move logits in float32 three times as far as sums do."""
    shutil.copytree(model, base := tmp_path / "base", ignore=shutil.ignore_patterns("*.safetensors*"))
    SlowFastForConditionalGeneration.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(base)
    adapter = fine_tune(base, videos, videos.parent, tmp_path / "run", LORA)
    merge(base, adapter, merged := tmp_path / "merged")
    assert json.loads((merged / "origin.json").read_text()) == {"model": str(base), "adapter": str(adapter)}
    learned = {
        name.removeprefix("base_model.model."): tensor
        for name, tensor in load_file(adapter / "adapter_model.safetensors").items()
        if ".lora_" not in name
    }
    stored = {name: tensor for file in merged.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert any("slow_attention" in name for name in learned)
    for name, tensor in stored.items():
        assert tensor.dtype == (torch.float32 if name in learned else torch.bfloat16), name
    assert all(torch.equal(stored[name], tensor) for name, tensor in learned.items())
    whole = VideoQA.load(merged, device="cpu", dtype="float32").checkpoint.model
    beside = VideoQA.load(base, device="cpu", dtype="float32", adapter=adapter).checkpoint.model
    assert torch.equal(logits_of(whole), logits_of(beside))


def test_a_wrong_model_and_a_wrong_folder_are_named(model: Path, trained: tuple[FineTuning, Path]) -> None:
    _, run = trained
    adapter = run / "adapter"
    with pytest.raises(CheckpointError, match="do not fit"):
        VideoQA.load("tiny", adapter=adapter)
    with pytest.raises(CheckpointError) as raised:
        VideoQA.load(adapter)
    assert f"--model {model} --adapter {adapter}" in raised.value.with_flags
    assert f"python -m sfvqa.training.merge {model} --adapter {adapter}" in raised.value.with_flags
    with pytest.raises(CheckpointError, match="no adapter"):
        VideoQA.load(model, adapter=model)


def test_what_was_trained_on_other_weights_is_warned_of(
    model: Path, trained: tuple[FineTuning, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    path = next(other.glob("*.safetensors"))
    with path.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    loaded = VideoQA.load(other, device="cpu", adapter=trained[1] / "adapter").checkpoint
    assert any("other weights" in warning for warning in loaded.warnings)
    assert not VideoQA.load(model, device="cpu", adapter=trained[1] / "adapter").checkpoint.warnings


def test_only_an_adapter_of_what_sees_changes_what_is_seen(model: Path, trained: tuple[FineTuning, Path]) -> None:
    """A converted decoder's projector learns in every form; without it, only LoRA on the tower does."""
    assert Adapter.of(trained[1] / "adapter").changes_what_is_seen
    assert (
        VideoQA.load(model, adapter=trained[1] / "adapter").checkpoint.identity
        != VideoQA.load(model).checkpoint.identity
    )


def test_merge_says_what_is_wrong(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge_main([str(model), "--adapter", str(tmp_path / "no"), "--out", str(tmp_path / "out")]) == 4
    assert "There is no folder" in capsys.readouterr().err
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "adapter_model.safetensors").touch()
    (tmp_path / "foreign" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_dora": True}))
    assert merge_main([str(model), "--adapter", str(tmp_path / "foreign"), "--out", str(tmp_path / "out")]) == 4
    assert "use_dora" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
