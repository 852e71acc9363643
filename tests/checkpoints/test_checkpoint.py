"""Both formats load to the same model; a folder that is not whole says which file or tensor is at fault."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from sfvqa.checkpoints.find import ModelSettings
from sfvqa.checkpoints.known import read_sizes
from sfvqa.checkpoints.load import LoadedCheckpoint, load_checkpoint
from sfvqa.checkpoints.placement import resolve_dtype
from sfvqa.errors import CheckpointError, ModelError, OutOfMemoryError, UsageError
from sfvqa.inference.video_qa import VideoQA

CPU = torch.device("cpu")


@pytest.fixture
def copy(checkpoint_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint_folder, tmp_path / "copy"))


def edit_json(path: Path, **changes: object) -> None:
    fields = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**fields, **changes}))


def test_both_formats_hold_the_same_weights(checkpoint: LoadedCheckpoint, reference_folder: Path) -> None:
    ours, theirs = (
        checkpoint.model.state_dict(),
        load_checkpoint(ModelSettings(reference_folder, device="cpu")).model.state_dict(),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_loaded_checkpoint_says_what_it_is(checkpoint: LoadedCheckpoint, checkpoint_folder: Path) -> None:
    assert checkpoint.location.name == str(checkpoint_folder)
    assert (checkpoint.location.spec, checkpoint.revision) == (None, None)
    assert not checkpoint.model.training
    assert (checkpoint.model.device, checkpoint.model.dtype) == (CPU, torch.float32)
    assert checkpoint.load_seconds > 0


def test_loading_prints_and_logs_nothing(
    checkpoint_folder: Path,
    reference_folder: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """transformers draws a bar, and warns of the reference's model type, which it does not know."""
    transformers_logging.enable_propagation()
    try:
        for folder in (checkpoint_folder, reference_folder):
            load_checkpoint(ModelSettings(folder, device="cpu"))
    finally:
        transformers_logging.disable_propagation()
    assert capfd.readouterr() == ("", "")
    assert caplog.messages == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_asked_for_is_the_one_used(checkpoint_folder: Path, attention: str) -> None:
    loaded = load_checkpoint(ModelSettings(checkpoint_folder, device="cpu", attention=attention))
    assert loaded.attention == attention
    assert loaded.model.language_model.config._attn_implementation == attention


def test_answers_end_where_transformers_ends_them_and_where_the_tokenizer_does(copy: Path) -> None:
    """Llama's config names token 2 unless told otherwise: SmolVLM2's own generation_config.json does not."""
    (copy / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    config = json.loads((copy / "config.json").read_text())
    edit_json(copy / "config.json", text_config={**config["text_config"], "eos_token_id": 7})
    assert load_checkpoint(ModelSettings(copy, device="cpu")).end_token_ids == {5, 6, 258}
    (copy / "generation_config.json").write_text("{}")
    assert load_checkpoint(ModelSettings(copy, device="cpu")).end_token_ids == {7, 258}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")) as caught:
        load_checkpoint(ModelSettings(copy, device="cpu"))
    assert caught.value.exit_code == 4
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"])
@pytest.mark.parametrize("damage", ["empty", "cut", "other"])
def test_a_damaged_file_is_a_checkpoint_error(copy: Path, name: str, damage: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes({"empty": b"", "cut": content[: len(content) // 2], "other": b"\xff\x00 no"}[damage])
    with pytest.raises(CheckpointError, match=str(copy)):
        load_checkpoint(ModelSettings(copy, device="cpu"))


def test_a_missing_shard_is_named(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    names = {"lm_head.weight": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        load_checkpoint(ModelSettings(copy, device="cpu"))


def test_missing_and_foreign_tensors_are_named(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["projector.fc1.bias"]
    tensors["surprise"] = torch.zeros(1)
    tensors["lm_head.weight"] = tensors["lm_head.weight"][:5].clone()
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(ModelSettings(copy, device="cpu"))
    assert all(name in caught.value.message for name in ("projector.fc1.bias", "surprise", "lm_head.weight"))


def test_a_model_of_another_kind_is_refused(copy: Path) -> None:
    edit_json(copy / "config.json", model_type="bert")
    with pytest.raises(CheckpointError, match="bert"):
        load_checkpoint(ModelSettings(copy, device="cpu"))


def test_a_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    from tests.inference.small_checkpoint import byte_level_tokenizer

    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(copy)
    with pytest.raises(CheckpointError, match="309 tokens, the model 272"):
        load_checkpoint(ModelSettings(copy, device="cpu"))


def test_pickled_weights_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="only as pickles"):
        load_checkpoint(ModelSettings(copy, device="cpu"))


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ({"device": "cuda:99"}, "cuda"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "meta"}, "meta"),
        ({"dtype": "int8"}, "int8"),
        ({"dtype": torch.float64}, "float64"),
        ({"attention": "magic"}, "magic"),
        ({"quantization": "3bit"}, "3bit"),
    ],
)
def test_a_setting_that_is_not_there_is_a_usage_error(
    checkpoint_folder: Path, setting: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_checkpoint(ModelSettings(checkpoint_folder, **setting))


def test_flash_attention_asks_for_its_extra(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"sfvqa\[flash-attn\]"):
        load_checkpoint(ModelSettings(checkpoint_folder, device="cpu", attention="flash_attention_2"))


@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_flash_attention_is_for_gpus(checkpoint_folder: Path, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would fail in the middle of the first answer."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: "installed")
    with pytest.raises(UsageError, match="not on cpu in"):
        load_checkpoint(ModelSettings(checkpoint_folder, device="cpu", dtype=dtype, attention="flash_attention_2"))


def test_an_unknown_name_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ModelError, match="Did you mean tiny"):
        load_checkpoint(ModelSettings("tinny", device="cpu"))


def test_auto_dtype_is_the_models_own_but_where_the_cpu_is_slower_in_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """float32 was taken on every CPU: on one with AVX512-BF16 that took 2.6 times as long."""
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr("sfvqa.checkpoints.host.CPUINFO", cpuinfo)
    models = [read_sizes(name) for name in ("tiny", "smolvlm2-500m", "llava-onevision-7b")]
    assert [model.auto_dtype("cuda") for model in models] == ["float32", "bfloat16", "float16"]
    for described, expected in [
        (None, "float32"),
        ("processor : 0\nflags\t\t: fpu avx512f avx512_bf16 sse\n", "bfloat16"),
        ("processor : 0\nflags\t\t: fpu avx512f sse\n", "float32"),
        ("processor : 0\nflags\t\t: fpu amx_bf16 sse\n", "bfloat16"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", "bfloat16"),
    ]:
        if described is not None:
            cpuinfo.write_text(described)
        assert [model.auto_dtype("cpu") for model in models] == ["float32", expected, expected]
    assert resolve_dtype("auto", "bfloat16") is torch.bfloat16
    assert resolve_dtype("float16", "bfloat16") is torch.float16


def test_a_small_folder_computes_in_float32(checkpoint_folder: Path) -> None:
    """It is fast anyway, and exact."""
    assert read_sizes(checkpoint_folder).dtype == "float32"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_loaded_in_the_dtype_asked_for(checkpoint_folder: Path, dtype: str) -> None:
    for given in (dtype, getattr(torch, dtype)):
        model = VideoQA.load(checkpoint_folder, device="cpu", dtype=given).checkpoint.model
        assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}


def test_memory_that_runs_out_while_loading_names_what_should_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer frames cannot help with weights: it once said only that."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sfvqa.checkpoints.load.random_model", fail)
    monkeypatch.setattr("sfvqa.checkpoints.load.free_memory_bytes", lambda _: 2_000_000_000)
    with pytest.raises(OutOfMemoryError, match=r"loading the model\..*quantization='8bit'"):
        load_checkpoint(ModelSettings("bench-0.5b", device="cpu", dtype="bfloat16", random_weights=True))
