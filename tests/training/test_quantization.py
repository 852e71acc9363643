"""The comparison of quantizations on a few questions; the README's table is the same over 500."""

import json

import pytest

from sfvqa.training.quantization import BASELINE, EXACT, VARIANTS, Agreement, Error, main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["--questions", "22", "--seed", "3", "--device", "cpu", "--json"])
    variants: dict[str, dict[str, float]] = json.loads(out.getvalue())["variants"]
    return variants


def test_every_variant_has_its_figures(figures: dict[str, dict[str, float]]) -> None:
    assert list(figures) == list(VARIANTS)
    assert {row["questions"] for row in figures.values()} == {22}
    assert figures[BASELINE]["agreement_on_true_answers"] == 1
    assert figures[EXACT]["logit_error_to_float32"] == 0


def test_fewer_bits_cost_memory_less_and_logits_more(figures: dict[str, dict[str, float]]) -> None:
    rows = list(figures.values())
    sizes = [row["weight_bytes"] for row in rows]
    errors = [row["logit_error_to_float32"] for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)


def test_four_bits_agree_with_sixteen(figures: dict[str, dict[str, float]]) -> None:
    """At least 97 % of tokens, and 2 points of accuracy: here that is every question."""
    four, baseline = figures["4bit, bfloat16"], figures[BASELINE]
    assert min(four["agreement_on_true_answers"], four["agreement_on_own_answers"]) >= 0.97
    assert four["accuracy"] >= baseline["accuracy"] - 0.05


def test_the_arithmetic_of_the_figures() -> None:
    import torch

    error, agreement = Error(), Agreement()
    assert (error.relative, agreement.share) == (0.0, 0.0)
    other = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    error.add(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), other)
    agreement.add(torch.tensor([[1.0, 2.0], [2.0, 1.0]]), other)
    assert error.relative == pytest.approx((1 / 26) ** 0.5)
    assert (agreement.same, agreement.tokens) == (1, 2)
