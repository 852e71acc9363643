"""The comparison of quantizations on a few questions; the README's table is the same over 500."""

import json

import pytest

from sfvqa.lab.tiny.quantization import BASELINE, EXACT, VARIANTS, Row, main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, float]]:
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["--questions", "11", "--seed", "3", "--device", "cpu", "--json"])
    variants: dict[str, dict[str, float]] = json.loads(out.getvalue())["variants"]
    return variants


def test_every_variant_has_its_figures(figures: dict[str, dict[str, float]]) -> None:
    assert list(figures) == list(VARIANTS)
    assert {row["questions"] for row in figures.values()} == {11}
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

    row = Row(7)
    assert (row.to_dict()["logit_error_to_float32"], row.to_dict()["agreement_on_true_answers"]) == (0.0, 0.0)
    exact = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    row.add(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]), exact, "true_answers")
    figures = row.to_dict()
    assert figures["logit_error_to_float32"] == pytest.approx((1 / 26) ** 0.5)
    assert (figures["agreement_on_true_answers"], figures["tokens"], figures["weight_bytes"]) == (0.5, 2, 7)
