"""What computes attention is refused in a sentence when it is not there, cannot compute there, or is broken."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.checkpoints.load import load_checkpoint
from sfvqa.checkpoints.placement import resolve_attention
from sfvqa.errors import UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from tests.fake_gpus import pretend_gpus

FLASH = ("flash_attention_2", torch.device("cuda"), torch.bfloat16)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ImportError('undefined symbol: _ZN3c10')", r"cannot be loaded: undefined symbol: _ZN3c10\. Install"),
        ("raise OSError('libcudart.so.11.0')", r"cannot be loaded: libcudart"),
        ("", "cannot use this version"),
    ],
)
def test_a_broken_flash_attn_is_a_sentence(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would end in an ImportError of its own, or leave the package's to be seen."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "flash_attn", None)  # so that the one imported below is gone afterwards
    monkeypatch.delitem(sys.modules, "flash_attn")
    with pytest.raises(UsageError, match=said):
        resolve_attention(*FLASH)


def test_flash_attn_is_refused_on_a_gpu_too_old_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels said so, once the model was loaded and the video encoded."""
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    pretend_gpus(monkeypatch, 16e9, capability=(7, 5))
    with pytest.raises(UsageError, match="compute capability 8"):
        resolve_attention("flash_attention_2", torch.device("cuda"), torch.float16)


@pytest.fixture
def _kernels_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With that package transformers fetches compiled attention from the hub where flash-attn is missing."""

    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("compiled code is fetched")

    monkeypatch.setattr("transformers.modeling_utils.is_kernels_available", lambda: True)
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", fetch)


@pytest.mark.usefixtures("_kernels_are_installed")
def test_compiled_code_is_not_fetched_in_place_of_flash_attn() -> None:
    with pytest.raises(UsageError, match="flash-attn is not installed"):
        load_checkpoint(ModelSettings("tiny", device="cpu", attention="flash_attention_2"))


@pytest.mark.usefixtures("_kernels_are_installed")
@pytest.mark.parametrize("part", [None, "text_config"])
def test_compiled_code_is_not_fetched_for_a_checkpoint_that_names_it(part: str | None, tmp_path: Path) -> None:
    folder = shutil.copytree(locate("tiny").folder, tmp_path / "checkpoint")
    fields = json.loads((folder / "config.json").read_text())
    (fields if part is None else fields[part])["_attn_implementation"] = "kernels-community/flash-attn2"
    (folder / "config.json").write_text(json.dumps(fields))
    assert load_checkpoint(ModelSettings(folder, device="cpu")).attention == "sdpa"
    model = SlowFastForConditionalGeneration.from_pretrained(folder)
    assert model.config._attn_implementation == model.config.decoder_config._attn_implementation == "sdpa"


def test_flash_attn_that_is_absent_or_unknown_names_what_to_do() -> None:
    with pytest.raises(UsageError, match="sdpa"):
        resolve_attention("flash", torch.device("cpu"), torch.float32)
