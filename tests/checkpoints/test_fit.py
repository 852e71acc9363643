"""What is chosen fits by the estimate, and more memory never gives less."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.checkpoints.memory import (
    BEST_FIRST,
    Fit,
    RunSize,
    choose_fit,
    estimate_memory,
    frame_counts,
    largest_that_fits,
    quantizations_on,
    remedy_for,
)
from sfvqa.registry import QuantizationName, find_model

SPEC = find_model("slowfast-7b-64f")
RUN = RunSize(64, "bfloat16", "cuda")
MEMORY = st.integers(0, 30 * 10**9)
FRAMES = st.integers(1, 512)


def chosen(free: int | None, num_frames: int = 64) -> Fit:
    return choose_fit(
        SPEC.architecture, SPEC.fast_tokens, RUN, free, quantizations=BEST_FIRST, frames=frame_counts(num_frames)
    )


@given(MEMORY, FRAMES)
def test_what_is_chosen_fits_or_nothing_does(free: int, num_frames: int) -> None:
    fit = chosen(free, num_frames)
    assert fit.fits == (fit.estimate.needed_bytes <= free)
    assert fit.estimate == estimate_memory(SPEC.architecture, SPEC.fast_tokens, fit.run)
    if not fit.fits:
        assert fit.run.quantization is QuantizationName.FOUR_BIT
        assert fit.run.num_frames == frame_counts(num_frames)[-1]


@given(MEMORY, MEMORY, FRAMES)
def test_more_memory_never_means_fewer_frames_or_a_worse_quantization(one: int, other: int, num_frames: int) -> None:
    less, more = (chosen(free, num_frames) for free in sorted((one, other)))
    assert more.run.num_frames >= less.run.num_frames
    assert BEST_FIRST.index(more.run.quantization) <= BEST_FIRST.index(less.run.quantization)
    assert more.fits >= less.fits


@given(FRAMES)
def test_frames_become_fewer_by_eighths(num_frames: int) -> None:
    counts = frame_counts(num_frames)
    assert counts[0] == num_frames
    assert counts == sorted(set(counts), reverse=True)
    assert counts[-1] >= 1


@given(MEMORY, FRAMES, st.sampled_from(BEST_FIRST))
def test_a_remedy_is_smaller_and_fits(free: int, num_frames: int, quantization: QuantizationName) -> None:
    run = RunSize(num_frames, "float32", "cpu", quantization)
    smaller = largest_that_fits(SPEC.architecture, SPEC.fast_tokens, run, free)
    if smaller is None:
        return
    assert smaller.estimate.needed_bytes <= free
    assert smaller.run != run
    assert smaller.run.num_frames <= num_frames
    assert BEST_FIRST.index(smaller.run.quantization) >= BEST_FIRST.index(quantization)


@pytest.mark.parametrize(
    ("free", "quantization", "num_frames"),
    [(None, "none", 64), (24 * 10**9, "none", 64), (16 * 10**9, "8bit", 64), (12 * 10**9, "4bit", 64)],
)
def test_the_7b_on_common_gpus(free: int | None, quantization: str, num_frames: int) -> None:
    fit = chosen(free)
    assert (fit.run.quantization.value, fit.run.num_frames, fit.fits) == (quantization, num_frames, True)


def test_8bit_is_for_who_asks_for_it_on_cuda_and_for_the_cpu() -> None:
    """Its layers wait for the device twice each, 392 times a token."""
    assert QuantizationName.EIGHT_BIT not in quantizations_on("cuda")
    assert quantizations_on("cpu") == BEST_FIRST


@pytest.mark.parametrize(
    ("free", "run", "says"),
    [
        (16 * 10**9, RUN, "--quant 4bit should fit"),
        (10 * 10**9, RUN, "--quant 4bit should fit"),
        (10 * 10**9, RunSize(512, "bfloat16", "cuda", QuantizationName.FOUR_BIT), "--frames 320 should fit"),
        (22 * 10**9, RunSize(8, "float32", "cpu", QuantizationName.NONE), "--quant 8bit should fit"),
        (10**9, RUN, "Use fewer frames"),
        (None, RUN, "Use fewer frames"),
    ],
)
def test_the_remedy_is_something_to_type(free: int | None, run: RunSize, says: str) -> None:
    assert remedy_for(SPEC.architecture, SPEC.fast_tokens, run, free).startswith(says)
