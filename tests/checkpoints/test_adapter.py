"""A model with an adapter: what its weights are, how it is told from others, and which folders are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sfvqa.checkpoints.adapter import Adapter
from sfvqa.checkpoints.find import ModelSettings, identify_model, identify_seeing
from sfvqa.checkpoints.known import read_sizes
from sfvqa.errors import CheckpointError, UnknownModelError, UsageError
from sfvqa.inference import VideoQA
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.adapter import AdaptedLinear
from tests.checkpoints.adapters import DECODER, GATE, TOWER, save_adapter


def load(adapter: Path | None = None, quantization: str = "none") -> SlowFastForConditionalGeneration:
    qa = VideoQA.load("tiny", device="cpu", dtype="float32", quantization=quantization, adapter=adapter)
    return qa.checkpoint.model


@pytest.mark.parametrize(("by_root", "scaling"), [(False, 3 / 2), (True, 3 / 2**0.5)])
def test_products_are_added_and_whole_weights_take_the_place_of_others(
    tmp_path: Path, *, by_root: bool, scaling: float
) -> None:
    folder = save_adapter(tmp_path / "a", DECODER, TOWER, use_rslora=by_root)
    before, after = load().state_dict(), load(folder).state_dict()
    given = load_file(folder / "adapter_model.safetensors")
    for layer in (DECODER, TOWER):
        down, up = (given[f"base_model.model.{layer}.lora_{part}.weight"] for part in "AB")
        expected = before[f"{layer}.weight"] + scaling * up @ down
        torch.testing.assert_close(after[f"{layer}.weight"], expected)
    assert after[GATE].tolist() == [0.25]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{DECODER}.weight", f"{TOWER}.weight", GATE}


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_quantized_weight_stays_and_gets_the_product_beside_it(tmp_path: Path, quantization: str) -> None:
    """The sum rounded to 4 bits would lose most of a small product."""
    folder = save_adapter(tmp_path / "a", DECODER, scale=0.01)
    states = torch.randn(3, 5, load().config.decoder_config.hidden_size)
    plain, adapted = (load(given, quantization).get_submodule(DECODER) for given in (None, folder))
    given = load_file(folder / "adapter_model.safetensors")
    down, up = (given[f"base_model.model.{DECODER}.lora_{part}.weight"] for part in "AB")
    assert isinstance(adapted, AdaptedLinear)
    with torch.inference_mode():
        added = adapted(states) - plain(states)
    torch.testing.assert_close(added, 1.5 * states @ down.T @ up.T, rtol=1e-3, atol=1e-5)


def test_what_is_seen_has_another_identity_only_with_an_adapter_of_the_tower(tmp_path: Path) -> None:
    """Videos that were encoded before serve an adapter of the decoder; a batch's answers are others all the same."""
    decoder, tower = save_adapter(tmp_path / "d", DECODER), save_adapter(tmp_path / "t", DECODER, TOWER)
    plain, with_decoder, with_tower = (
        ModelSettings("tiny", adapter=str(adapter) if adapter else None) for adapter in (None, decoder, tower)
    )
    assert identify_seeing(with_decoder) == identify_seeing(plain) != identify_seeing(with_tower)
    assert VideoQA.load("tiny", adapter=tower).checkpoint.identity == identify_seeing(with_tower)
    names = {
        identify_model("tiny", random_weights=False, adapter=str(a) if a else None) for a in (None, decoder, tower)
    }
    assert len(names) == 3


def test_a_folder_that_was_written_anew_has_another_identity(tmp_path: Path) -> None:
    before = Adapter.of(save_adapter(tmp_path / "a", DECODER)).identity
    path = tmp_path / "a" / "adapter_model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert Adapter.of(tmp_path / "a").identity != before


def test_it_looks_at_videos_as_the_adapter_was_trained_to(tmp_path: Path) -> None:
    trained = {"training_num_frames": 12, "training_sampling": "uniform", "training_crop": "pad"}
    folder = save_adapter(tmp_path / "a", DECODER, trained=trained)
    assert read_sizes("tiny", folder).trained_with.num_frames == 12
    qa = VideoQA.load("tiny", adapter=folder)
    assert (qa.default_sampling.num_frames, qa.default_crop.value) == (12, "pad")
    assert "a" in qa.checkpoint.location.name
    foreign = VideoQA.load("tiny", adapter=save_adapter(tmp_path / "b", DECODER))
    assert foreign.trained_with == VideoQA.load("tiny").trained_with


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"lora_alpha": "much"}, "lora_alpha"),
    ],
)
def test_what_is_no_plain_lora_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load(save_adapter(tmp_path / "a", DECODER, **fields))


def test_wrong_folders_and_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no folder"):
        load(tmp_path / "nothing")
    folder = save_adapter(tmp_path / "a", DECODER)
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"base_model.model.elsewhere.lora_A.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(CheckpointError, match=r"elsewhere.*trained on"):
        load(folder)
    tied = torch.zeros(load().lm_head.weight.shape)  # to the embeddings: no file has it, and nothing would change
    save_file(tensors | {"base_model.model.lm_head.weight": tied}, path)
    with pytest.raises(CheckpointError, match="lm_head"):
        load(folder)
    del tensors[f"base_model.model.{DECODER}.lora_B.weight"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="lora_A"):
        load(folder)
    path.write_bytes(b"torn")
    for wrong in (load, identify_adapter):
        with pytest.raises(CheckpointError, match="corrupt"):
            wrong(folder)
    (folder / "adapter_config.json").write_text(json.dumps([]))
    with pytest.raises(CheckpointError, match="JSON object"):
        load(folder)


def identify_adapter(folder: Path) -> str:
    return identify_seeing(ModelSettings("tiny", adapter=str(folder)))


def test_random_weights_take_no_adapter(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="trained weights"):
        VideoQA.load("tiny", random_weights=True, adapter=save_adapter(tmp_path / "a", DECODER))
