"""An adapter that PEFT made of transformers' own class of a model is merged as PEFT merges it."""

from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.adapter import Adapter
from sfvqa.model import SlowFastForConditionalGeneration
from tests.model.families import published


@pytest.mark.parametrize("family", published.FAMILIES)
@pytest.mark.parametrize("by_root", [False, True])
def test_peft_merges_the_same(family: str, tmp_path: Path, *, by_root: bool) -> None:
    peft = pytest.importorskip("peft")
    base = published.save_whole(family, tmp_path / "base")
    config = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=["q_proj", "up_proj", "fc1"], init_lora_weights=False, use_rslora=by_root
    )
    wrapped = peft.get_peft_model(base, config)
    wrapped.save_pretrained(tmp_path / "adapter")
    published.save(wrapped.merge_and_unload(), tmp_path / "merged")
    plain, ours, theirs = (
        SlowFastForConditionalGeneration.from_pretrained(tmp_path / folder, adapter=adapter).state_dict()
        for folder, adapter in (
            ("base", None),
            ("base", Adapter.of(tmp_path / "adapter").tensors),
            ("merged", None),
        )
    )
    changed = {name for name in plain if not torch.equal(plain[name], theirs[name])}
    assert {name.split(".")[0] for name in changed} == {"vision_tower", "language_model"}
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name])
