"""Copies of the bundled model in 8 and 4 bits: made whole or not at all, used when they are of the same version."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfvqa.errors import CheckpointError, ModelError, ModelNotDownloadedError, SfvqaError, UsageError
from sfvqa.inference import quantize_copy as making
from sfvqa.inference.checkpoint import LoadedCheckpoint, load_checkpoint
from sfvqa.inference.copy_folders import alone_with, copies_folder, remains_of, remove_remains
from sfvqa.inference.locate import CheckpointLocation, locate
from sfvqa.inference.quantize_copy import quantize_copy
from sfvqa.inference.quantized_copies import COPY_FILE, list_copies, locate_for
from sfvqa.inference.revision import revision_of
from sfvqa.model import shard_writing
from sfvqa.registry import find_model

BITS = ("8bit", "4bit")
TINY = find_model("tiny")


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFVQA_DATA_DIR", str(tmp_path / "data"))


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
def test_a_copy_answers_as_quantizing_anew_does(quantization: str, dtype: str) -> None:
    anew = load_checkpoint("tiny", device="cpu", dtype=dtype, quantization=quantization)
    copy = quantize_copy("tiny", quantization, device="cpu")
    loaded = load_checkpoint("tiny", device="cpu", dtype=dtype, quantization=quantization)
    assert (anew.quantized_copy, loaded.quantized_copy) == (None, copy)
    assert loaded.quantization == quantization
    assert loaded.revision == anew.revision
    assert loaded.end_token_ids == anew.end_token_ids
    assert torch.equal(logits_of(loaded), logits_of(anew))


def test_another_quantization_does_not_use_the_copy() -> None:
    quantize_copy("tiny", "4bit", device="cpu")
    for quantization in ("auto", "none", "8bit"):
        assert load_checkpoint("tiny", device="cpu", quantization=quantization).quantized_copy is None


def test_a_copy_of_another_version_is_not_used() -> None:
    copy = quantize_copy("tiny", "4bit", device="cpu")
    path = copy.folder / COPY_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "0123456789ab"}))
    assert load_checkpoint("tiny", device="cpu", quantization="4bit").quantized_copy is None
    quantize_copy("tiny", "4bit", device="cpu")  # needs no --force: that one is of no use
    assert load_checkpoint("tiny", device="cpu", quantization="4bit").quantized_copy is not None


def test_what_it_was_made_of_is_written_beside_it() -> None:
    copy = quantize_copy("tiny", "8bit", device="cpu")
    made_of = json.loads((copy.folder / COPY_FILE).read_text())
    assert (made_of["model"], made_of["quantization"], made_of["device"]) == ("tiny", "8bit", "cpu")
    assert made_of["revision"] == revision_of(locate("tiny"))
    assert {"sfvqa", "torch", "transformers", "bitsandbytes"} == set(made_of["versions"])
    assert copy.size_bytes < sum(path.stat().st_size for path in locate("tiny").folder.iterdir())


def test_the_folder_of_a_copy_loads_by_its_path() -> None:
    folder = quantize_copy("tiny", "4bit", device="cpu").folder
    for asked in ("auto", "4bit"):
        assert load_checkpoint(folder, device="cpu", quantization=asked).quantization == "4bit"
    for asked in ("none", "8bit"):
        with pytest.raises(UsageError, match=f"quantized to 4bit; it cannot be loaded as {asked}"):
            load_checkpoint(folder, device="cpu", quantization=asked)


def test_a_damaged_copy_is_named() -> None:
    folder = quantize_copy("tiny", "4bit", device="cpu").folder
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=file.name) as caught:
        load_checkpoint("tiny", device="cpu", quantization="4bit")
    assert caught.value.remedy == "Make the copy anew: `sfvqa models quantize tiny --quant 4bit --force`."


def test_a_copy_that_may_not_be_removed_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    quantize_copy("tiny", "4bit", device="cpu")

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(CheckpointError, match="could not be removed entirely: Read-only file system"):
        remove_remains(remains_of(TINY)[0])


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_text("{"), Path.touch])
def test_a_copy_that_is_damaged_is_removed_all_the_same(damage: Callable[[Path], object]) -> None:
    """It was found by its provenance: without that, gigabytes stayed and "no copy is kept"."""
    copy = quantize_copy("tiny", "4bit", device="cpu")
    damage(copy.folder / COPY_FILE)
    (remains,) = remains_of(TINY)
    assert remains.folders == (copy.folder,)
    assert copy.size_bytes - 2000 < remains.size_bytes <= copy.size_bytes
    remove_remains(remains)
    assert list(copies_folder().iterdir()) == []
    assert remains_of(TINY) == []


def test_a_removal_that_breaks_off_leaves_no_half_a_copy_and_is_finished_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy = quantize_copy("tiny", "4bit", device="cpu")
    with monkeypatch.context() as patch:

        def break_off(_path: Path) -> None:
            raise KeyboardInterrupt

        patch.setattr("shutil.rmtree", break_off)
        with pytest.raises(KeyboardInterrupt):
            remove_remains(remains_of(TINY)[0])
    assert not copy.folder.exists()
    (remains,) = remains_of(TINY)
    assert remains.size_bytes == copy.size_bytes
    remove_remains(remains)
    assert list(copies_folder().iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_copy() -> None:
    """`kill -9` while it writes; the lock it held ends with it."""
    code = (
        "import os, signal\n"
        "from sfvqa.inference.copy_folders import alone_with\n"
        "with alone_with('tiny', '4bit') as partial:\n"
        "    (partial / 'model-00001.safetensors').write_bytes(bytes(1000))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = remains_of(TINY)
    assert left.size_bytes == 1000
    remove_remains(left)
    assert remains_of(TINY) == []
    subprocess.run([sys.executable, "-c", code], check=False)
    quantize_copy("tiny", "4bit", device="cpu")
    assert [path.name for path in copies_folder().iterdir()] == ["tiny-4bit"]


def test_a_folder_that_takes_no_copies_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "locks").touch()
    with pytest.raises(ModelError, match=r"locks.* cannot be written: File exists\. .*SFVQA_DATA_DIR"):
        quantize_copy("tiny", "4bit", device="cpu")


def test_what_another_process_is_writing_is_left_alone() -> None:
    with alone_with("tiny", "4bit") as partial:
        (partial / "model-00001.safetensors").touch()
        with pytest.raises(ModelError, match="Another process is making or removing the 4bit copy of tiny"):
            remove_remains(remains_of(TINY)[0])
        with pytest.raises(ModelError, match="Another process"):
            quantize_copy("tiny", "4bit", device="cpu")
        assert (partial / "model-00001.safetensors").exists()
        quantize_copy("tiny", "8bit", device="cpu")  # another copy is another matter


def test_a_copy_is_not_made_twice_unless_forced() -> None:
    first = quantize_copy("tiny", "4bit", device="cpu")
    with pytest.raises(UsageError, match="Use force=True"):
        quantize_copy("tiny", "4bit", device="cpu")
    assert quantize_copy("tiny", "4bit", device="cpu", force=True) == first
    assert [path.name for path in copies_folder().iterdir()] == ["tiny-4bit"]


def test_copies_are_listed_and_removed() -> None:
    assert list_copies() == []
    copies = [quantize_copy("tiny", quantization, device="cpu") for quantization in BITS]
    (copies_folder() / "something-else").mkdir()
    assert list_copies() == sorted(copies, key=lambda copy: copy.folder)
    remove_remains(remains_of(TINY)[0])
    assert list_copies() == copies[1:]


def test_a_copy_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "_write_rest", fail)
    with pytest.raises(KeyboardInterrupt):
        quantize_copy("tiny", "4bit", device="cpu")
    assert list(copies_folder().iterdir()) == []


def test_a_full_disk_is_found_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(SfvqaError, match="SFVQA_DATA_DIR"):
        quantize_copy("tiny", "4bit", device="cpu")


def test_many_files_are_as_good_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    one = logits_of(load_checkpoint(quantize_copy("tiny", "4bit", device="cpu").folder, device="cpu"))
    monkeypatch.setattr(shard_writing, "SHARD_BYTES", 300_000)
    folder = quantize_copy("tiny", "4bit", device="cpu", force=True).folder
    assert len(list(folder.glob("*.safetensors"))) > 3
    assert torch.equal(logits_of(load_checkpoint(folder, device="cpu")), one)


def test_a_copy_will_do_when_the_model_itself_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven gigabytes may stay where seventeen have no room."""
    four, eight = (quantize_copy("tiny", bits, device="cpu") for bits in ("4bit", "8bit"))

    def gone(_spec: Any) -> CheckpointLocation:
        raise ModelNotDownloadedError("It is not here.")

    monkeypatch.setattr("sfvqa.inference.quantized_copies.locate_registered", gone)
    for asked, copy in (("4bit", four), ("8bit", eight), ("auto", eight)):
        location, used = locate_for("tiny", asked)
        assert (location.folder, used) == (copy.folder, copy)
    shutil.rmtree(eight.folder)
    assert locate_for("tiny", "auto")[1] == four
    for other in ("8bit", "none"):
        with pytest.raises(ModelNotDownloadedError, match="A copy of it in 4bit is: use quantization='4bit'"):
            locate_for("tiny", other)
    shutil.rmtree(four.folder)
    with pytest.raises(ModelNotDownloadedError) as caught:
        locate_for("tiny", "4bit")
    assert caught.value.remedy == ""


@pytest.mark.parametrize(("model", "quantization"), [("tiny", "none"), ("tiny", "3bit"), (".", "4bit")])
def test_what_cannot_be_copied_is_a_usage_error(model: str, quantization: str) -> None:
    with pytest.raises(UsageError):
        quantize_copy(model, quantization, device="cpu")
