"""The paper's claim of what more frames cost follows from the operations of the full-size model."""

import pytest

from sfvqa.checkpoints.plan import config_of
from sfvqa.lab.measurements.prefill_cost import count_prefill_on_meta, main, num_text_at_claim, prefill_cost
from sfvqa.registry import find_model
from sfvqa.registry.architecture import PromptSize, prefill_flops, prompt_size

SEVEN_B = find_model("slowfast-7b-64f")


def test_a_network_without_memory_counts_like_one_that_runs() -> None:
    spec = find_model("tiny")
    prompt = prompt_size(spec.architecture, spec.fast_tokens, 32, num_text=40)
    assert count_prefill_on_meta(config_of(spec), prompt) == prefill_flops(spec.architecture, prompt)


@pytest.mark.parametrize(("num_frames", "at_most"), [(64, 0.01), (96, 0.015), (128, 0.02)])
def test_more_frames_cost_the_7b_a_few_percent(num_frames: int, at_most: float) -> None:
    """At full size, 50 text tokens: by formula, counted, and without the scores that a causal mask hides."""
    cost = prefill_cost(SEVEN_B, num_frames, num_text=50)
    assert cost.prompt == PromptSize(16 * 81 + 50, num_frames * 81, 50)
    assert cost.overhead_counted == pytest.approx(cost.overhead_by_formula, rel=1e-6)
    assert at_most - 0.002 < cost.overhead_by_formula < cost.overhead_needed < at_most


def test_the_papers_three_percent_is_a_longer_question() -> None:
    skipped, all_scores = (num_text_at_claim(SEVEN_B, 128, skip_masked=skip) for skip in (True, False))
    assert (skipped, all_scores) == (1182, 1446)
    assert num_text_at_claim(SEVEN_B, 64, skip_masked=True) is None


def test_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--frames", "128"])
    printed = capsys.readouterr().out
    assert "| 128 | 1,346 | 10,368 | 18.6 TFLOP | +1.83% | +1.83% | +1.86% | 8.8× |" in printed
    assert "at 1,446 text tokens, or at 1,182 text tokens" in printed
