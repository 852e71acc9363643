"""The bundled model in 8 and 4 bits: a folder like any other, written whole or not at all."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfvqa.checkpoints import quantize as making
from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.checkpoints.known import read_sizes, read_trained_with
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.checkpoints.quantize import quantize
from sfvqa.errors import CheckpointError, SfvqaError, UsageError

BITS = ("8bit", "4bit")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "quantized"


def logits_of(checkpoint: LoadedCheckpoint) -> Tensor:
    """Of a prompt with a video that nobody would recognise."""
    model = checkpoint.model
    generator = torch.Generator().manual_seed(0)
    size = model.config.vision.image_size
    with torch.inference_mode():
        video = model.encode_video(torch.randn(8, 3, size, size, generator=generator))
        ids = torch.tensor([[1, 2, *[-200] * len(video.fast), 3, 4, 5]])
        logits: Tensor = model(ids, visual_tokens=[video]).logits
    return logits


@pytest.mark.parametrize("quantization", BITS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_folder_answers_as_quantizing_anew_does(out: Path, quantization: str, dtype: str) -> None:
    anew = load_checkpoint(ModelSettings("tiny", device="cpu", dtype=dtype, quantization=quantization))
    assert quantize("tiny", out, quantization, device="cpu") == locate("tiny")
    loaded = load_checkpoint(ModelSettings(out, device="cpu", dtype=dtype))
    assert loaded.quantization == quantization
    assert loaded.end_token_ids == anew.end_token_ids
    assert loaded.trained_with == anew.trained_with
    assert torch.equal(logits_of(loaded), logits_of(anew))
    assert sum(map(size, out.iterdir())) < sum(map(size, locate("tiny").folder.iterdir()))


def size(path: Path) -> int:
    return path.stat().st_size


def test_the_folder_says_what_it_is(out: Path) -> None:
    quantize("tiny", out, "4bit", device="cpu")
    assert read_sizes(out).quantization == "4bit"
    assert load_checkpoint(ModelSettings(out, device="cpu", quantization="4bit")).quantization == "4bit"
    for asked in ("none", "8bit"):
        with pytest.raises(UsageError, match=f"quantized to 4bit; it cannot be loaded as {asked}"):
            load_checkpoint(ModelSettings(out, device="cpu", quantization=asked))


def test_the_folder_keeps_what_only_models_toml_knows_of_the_training(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published config.json does not say it all."""
    bare = shutil.copytree(locate("tiny").folder, tmp_path / "bare")
    fields = json.loads((bare / "config.json").read_text())
    kept = {name: value for name, value in fields.items() if not name.startswith("training_")}
    (bare / "config.json").write_text(json.dumps(kept))
    monkeypatch.setattr(making, "locate", lambda _model: replace(locate("tiny"), folder=bare))
    quantize("tiny", out, "4bit", device="cpu")
    spec = locate("tiny").spec
    assert spec is not None
    assert read_trained_with(out) == read_trained_with(spec)
    assert read_sizes(out).training_max_length == spec.training_max_length


def test_a_folder_can_be_quantized_too_but_once(out: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(locate("tiny").folder, tmp_path / "mine")
    quantize(folder, out, "4bit", device="cpu")
    with pytest.raises(UsageError, match="already quantized to 4bit"):
        quantize(out, tmp_path / "again", "4bit", device="cpu")


def test_what_is_there_is_left_alone(out: Path) -> None:
    out.mkdir(parents=True)
    with pytest.raises(UsageError, match="already exists"):
        quantize("tiny", out, "4bit", device="cpu")
    assert list(out.iterdir()) == []


def test_what_fails_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "write_rest", fail)
    with pytest.raises(KeyboardInterrupt):
        quantize("tiny", out, "4bit", device="cpu")
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_is_found_out_first(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(SfvqaError, match="another disk"):
        quantize("tiny", out, "4bit", device="cpu")
    assert list(out.parent.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        quantize("tiny", tmp_path / "file" / "out", "4bit", device="cpu")


def test_a_damaged_folder_is_named(out: Path) -> None:
    quantize("tiny", out, "4bit", device="cpu")
    file = next(out.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=file.name):
        load_checkpoint(ModelSettings(out, device="cpu"))


def test_many_files_are_as_good_as_one(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize("tiny", out, "4bit", device="cpu")
    monkeypatch.setattr("sfvqa.checkpoints.quantize.SHARD_BYTES", 300_000)
    quantize("tiny", tmp_path / "many", "4bit", device="cpu")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 3
    assert torch.equal(
        *(logits_of(load_checkpoint(ModelSettings(each, device="cpu"))) for each in (out, tmp_path / "many"))
    )


@pytest.mark.parametrize("quantization", ["none", "3bit"])
def test_what_is_no_quantization_is_a_usage_error(out: Path, quantization: Any) -> None:
    with pytest.raises(UsageError):
        quantize("tiny", out, quantization, device="cpu")
