"""A variant is its config, and starts from what variants have in common."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from sfvqa.lab.comparison.cells import Tokens, Variant, build, deepened, prompt_flops, small_variants
from sfvqa.lab.comparison.run import Experiment
from sfvqa.model import IMAGE_TOKEN_ID, Gating, SlowAttentionScope
from sfvqa.profiling.floors import count_on_model
from tests.lab.comparison.smallest import FAST_ONLY, SLOW_FAST, SMALLEST


def test_variants_share_the_first_values_of_what_they_have_in_common(tokenizer: PreTrainedTokenizerFast) -> None:
    slow_fast = build(SMALLEST, SLOW_FAST.variant, tokenizer, 3).state_dict()
    for variant in (FAST_ONLY.variant, Variant("other", 16, gating=Gating.NONE, slow_from_decoder=False)):
        other = build(SMALLEST, variant, tokenizer, 3).state_dict()
        for name, value in other.items():
            if "slow_attention" not in name:
                assert torch.equal(value, slow_fast[name]), name
    different = build(SMALLEST, SLOW_FAST.variant, tokenizer, 4).state_dict()
    assert not torch.equal(different["lm_head.weight"], slow_fast["lm_head.weight"])


def test_a_cell_starts_from_the_shared_plain_decoder(shared: Experiment) -> None:
    """As in the paper: what is compared is how frames are looked at, not how a language is learned from nothing."""
    base = shared.base
    model = build(SMALLEST, SLOW_FAST.variant, shared.tokenizer, 5, learned=base)
    for name, value in model.state_dict().items():
        if "slow_attention" not in name:
            assert torch.equal(value, base[name]), name
    attention: Any = model.language_model.get_submodule("layers.0.self_attn")
    assert attention.slow_attention.kv_proj.weight[: attention.head_dim].equal(
        base["language_model.layers.0.self_attn.k_proj.weight"][: attention.head_dim]
    )


def test_a_deep_cell_starts_with_the_logits_of_the_shared_decoder(shared: Experiment) -> None:
    """Else spacings of hybrid layers would be compared in decoders that cannot answer yet."""
    plain = Variant("plain", 32, Tokens.ALL)
    shallow = build(SMALLEST, plain, shared.tokenizer, 0, learned=shared.base)
    deep = build(SMALLEST, replace(plain, deep=True), shared.tokenizer, 7, learned=shared.base)
    assert deep.config.decoder_config.num_hidden_layers == 2 * SMALLEST.num_layers
    assert set(deepened(shared.base)) == set(deep.state_dict())
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.allclose(deep(ids).logits, shallow(ids).logits, atol=1e-5)


def test_warm_up_gates_can_start_from_zero_as_in_the_paper(shared: Experiment) -> None:
    """Then a cell starts with the very logits of the shared decoder, and else it does not."""
    (zero,) = (variant for variant in small_variants(SMALLEST) if variant.first_gate == 0)
    logits = []
    for variant in (zero, SLOW_FAST.variant, FAST_ONLY.variant):
        model = build(SMALLEST, variant, shared.tokenizer, 0, learned=shared.base)
        model.train(False)
        tokens = model.split(torch.randn(32, 2, 2, SMALLEST.width, generator=torch.Generator().manual_seed(0)))
        prompt = torch.tensor([[1, *[IMAGE_TOKEN_ID] * len(tokens.fast), *range(2, 20)]])
        with torch.no_grad():
            logits.append(model(prompt, visual_tokens=[tokens]).logits)
    assert torch.equal(logits[0], logits[2])
    assert not torch.allclose(logits[1], logits[2])


def test_slow_keys_and_values_start_as_the_decoder_s_own(tokenizer: PreTrainedTokenizerFast) -> None:
    """Interleaved head by head: read in another layout, keys would be scrambled with values."""
    states = torch.randn(1, 5, SMALLEST.width)
    for from_decoder in (True, False):
        model = build(SMALLEST, replace(SLOW_FAST.variant, slow_from_decoder=from_decoder), tokenizer, 0)
        attention: Any = model.language_model.get_submodule("layers.0.self_attn")
        keys, values = attention.project_slow(states)
        for found, projection in ((keys, attention.k_proj), (values, attention.v_proj)):
            own = projection(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            assert torch.allclose(found, own, atol=1e-6) == from_decoder


@pytest.mark.parametrize(
    ("variant", "num_fast", "hybrid_layers"),
    [
        (Variant("a", 32), 16 * 4, [0]),
        (Variant("a", 32, hybrid_every=1), 16 * 4, [0, 1]),
        (Variant("stride", 32, num_fast_frames=4), 4 * 4, [0]),
        (Variant("deep", 32, deep=True), 16 * 4, [0, 2]),
        (Variant("all look", 32, scope=SlowAttentionScope.ALL), 16 * 4, [0]),
        (Variant("b", 32, Tokens.FAST_ONLY), 16 * 4, []),
        (Variant("c", 32, Tokens.ALL), 32 * 4, []),
        (Variant("d", 16, Tokens.ALL), 16 * 4, []),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_variant_is_its_config(
    variant: Variant, num_fast: int, hybrid_layers: list[int], tokenizer: PreTrainedTokenizerFast
) -> None:
    model = build(SMALLEST, variant, tokenizer, 0)
    tokens = model.split(torch.randn(variant.num_frames, 2, 2, SMALLEST.width))
    assert len(tokens.fast) == num_fast
    assert model.config.hybrid_layers == hybrid_layers
    prompt = [1, *[IMAGE_TOKEN_ID] * num_fast, *range(2, 20)]
    model.eval()  # type: ignore[no-untyped-call]
    counted = count_on_model(model, variant.num_frames, prompt, tokens).prefill
    assert prompt_flops(model.config, variant.num_frames, len(prompt) - num_fast) == pytest.approx(counted, rel=1e-6)
