"""The published reference's samplers: the indices that its own arithmetic gives, written out in its own terms."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.video import FrameChoice, SamplingOptions, SamplingStrategy, Timeline, choose_frames

DEMO = SamplingStrategy.REFERENCE_DEMO
TRAINING = SamplingStrategy.REFERENCE_TRAINING
EVALUATION = SamplingStrategy.REFERENCE_EVALUATION


def choose(strategy: SamplingStrategy, num_available: int, fps: float, num_frames: int) -> FrameChoice:
    timeline = Timeline([place / fps for place in range(num_available)], fps=fps)
    return choose_frames(timeline, SamplingOptions(num_frames, strategy))


@given(st.integers(1, 5000), st.integers(1, 200))
def test_the_demo_is_linspace_without_its_repeats(num_available: int, num_frames: int) -> None:
    repeated = np.linspace(0, num_available - 1, num_frames, dtype=int)
    choice = choose(DEMO, num_available, 25.0, num_frames)
    assert choice.indices == tuple(np.unique(repeated))
    assert bool(choice.notes) == (len(choice.indices) < num_frames)


@pytest.mark.parametrize("fps", [30.0, 25.0, 24.0, 30000 / 1001, 60.0, 10.0, 6.0, 4.0, 3.0, 2.0, 1.0, 0.4])
def test_training_and_evaluation_step_and_thin_out_as_the_reference(fps: float) -> None:
    steps = (TRAINING, round(fps / min(4, fps))), (EVALUATION, max(round(fps / 2), 1))
    for num_available, num_frames, (strategy, step) in product((1, 50, 512, 5001), (1, 16, 64, 96), steps):
        expected = np.arange(0, num_available, step)
        if len(expected) >= num_frames:
            scale = 1.0 * len(expected) / num_frames
            expected = expected[[round((number + 1) * scale - 1) for number in range(num_frames)]]
        assert choose(strategy, num_available, fps, num_frames).indices == tuple(expected)


@pytest.mark.parametrize(
    ("strategy", "fps", "indices"),
    [
        (TRAINING, 30.0, (0, 8, 16)),  # 7.5 rounds to the even number
        (TRAINING, 10.0, (0, 2, 4, 6, 8, 10, 12, 14, 16, 18)),  # and so does 2.5
        (EVALUATION, 25.0, (0, 12)),  # and 12.5
        (EVALUATION, 3.0, (0, 2, 4, 6, 8, 10, 12, 14, 16, 18)),  # 1.5
        (EVALUATION, 240.0, (0,)),
        (EVALUATION, 0.4, tuple(range(20))),  # 0.2 rounds to 0: every frame
        (TRAINING, 0.1, tuple(range(20))),
    ],
)
def test_twenty_frames_are_chosen_by_hand(strategy: SamplingStrategy, fps: float, indices: tuple[int, ...]) -> None:
    assert choose(strategy, 20, fps, 64).indices == indices


def test_a_rate_computed_from_timestamps_rounds_like_the_exact_one() -> None:
    """25 fps that comes out as 25.000000000000004 must not turn the step from 12 into 13."""
    for fps in (np.nextafter(25.0, 0), 25.0, np.nextafter(25.0, 99)):
        assert choose(EVALUATION, 100, float(fps), 64).indices == tuple(range(0, 100, 12))


def test_a_range_is_sampled_like_a_file_of_its_own() -> None:
    timeline = Timeline([place / 30 for place in range(300)], fps=30.0)
    for strategy in (DEMO, TRAINING, EVALUATION):
        options = SamplingOptions(8, strategy, start_seconds=2.0, end_seconds=5.0)
        alone = choose(strategy, 91, 30.0, 8)
        assert choose_frames(timeline, options).indices == tuple(60 + index for index in alone.indices)
