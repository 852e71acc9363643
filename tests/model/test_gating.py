"""Every gating builds, runs, is shut by `without_slow`, learns what it says it learns, and counts its parameters."""

from pathlib import Path

import pytest
import torch

from sfvqa.checkpoints.plan import architecture_of
from sfvqa.model import Gating, SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import GatedSlowAttention
from tests.model.conftest import ModelMaker, frames, prompt
from tests.model.passes import prefill


def logits_of(model: SlowFastForConditionalGeneration) -> torch.Tensor:
    with torch.inference_mode():
        sample = model.encode_video(frames(8))
        logits, _ = prefill(model, torch.tensor([prompt(sample, [4, 5])]), None, [sample])
    return logits


@pytest.mark.parametrize("gating", list(Gating))
def test_every_gating_looks_can_be_shut_and_survives_a_folder(
    gating: Gating, make_model: ModelMaker, tmp_path: Path
) -> None:
    model = make_model(gating=gating)
    open_logits = logits_of(model)
    with model.without_slow():
        assert not torch.allclose(logits_of(model), open_logits)
    assert torch.equal(logits_of(model), open_logits)
    model.save_pretrained(tmp_path)
    loaded = SlowFastForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded), open_logits)
    assert architecture_of(model.config).num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("gating", list(Gating))
def test_a_gating_learns_the_gates_it_names_and_no_others(gating: Gating, make_model: ModelMaker) -> None:
    model = make_model(gating=gating)
    sample = model.encode_video(frames(8))
    ids = torch.tensor([prompt(sample, [4, 5])])
    labels = torch.full_like(ids, -100)
    labels[0, -1] = 5
    loss = model(ids, visual_tokens=[sample], labels=labels, use_cache=False).loss
    assert loss is not None
    loss.backward()
    for module in model.modules():
        if isinstance(module, GatedSlowAttention):
            assert (module.warm_up_gate.grad is not None) == gating.has_warm_up
            assert (module.gate_proj is not None) == gating.is_dynamic
            assert module.kv_proj.weight.grad is not None


def test_without_gates_slow_attention_is_added_as_it_is(make_model: ModelMaker) -> None:
    """An open warm-up gate of 1, taken as it is: neither squashed by tanh nor lost when weights are drawn."""
    layers = [module for module in make_model(gating="none").modules() if isinstance(module, GatedSlowAttention)]
    assert [layer.gate(torch.ones(1, 2, 8)).tolist() for layer in layers] == [[[[1.0], [1.0]]]] * 2
