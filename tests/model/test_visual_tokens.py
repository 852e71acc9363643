"""The arithmetic of slow and fast tokens beyond what the golden cases show."""

import pytest
import torch

from sfvqa.model import VisualTokens, num_frames_outside_fast_path
from sfvqa.model.visual_tokens import SlowTokens, average_over_time, pool_frames, sample_fast_frames, split_video
from tests.model.conftest import small_config


@pytest.mark.parametrize(
    ("num_frames", "stride", "kept"),
    [(64, 1, 16), (96, 1, 16), (128, 2, 16)],
)
def test_the_released_settings_give_16_fast_frames(num_frames: int, stride: int, kept: int) -> None:
    sampled = sample_fast_frames(num_frames, stride, 16)
    averaged = average_over_time(torch.zeros(len(sampled), 1, 1, 2), {64: 4, 96: 6, 128: 4}[num_frames], 16)
    assert len(averaged) == kept


def test_windows_are_averages_and_the_tail_is_dropped() -> None:
    frames = torch.arange(7.0)[:, None, None, None]
    assert average_over_time(frames, 2, 2).flatten().tolist() == [0.5, 2.5, 4.5]


def test_adaptive_windows_overlap_and_cover_every_frame() -> None:
    frames = torch.arange(4.0)[:, None, None, None]
    assert average_over_time(frames, 4, 3).flatten().tolist() == [0.5, 1.5, 2.5]


@pytest.mark.parametrize(("num_frames", "outside"), [(1, 0), (3, 0), (4, 0), (5, 1), (8, 0), (9, 1)])
def test_the_tail_outside_the_fast_path_is_counted(num_frames: int, outside: int) -> None:
    config = small_config()  # averages 2 frames, at least 2 fast frames
    assert num_frames_outside_fast_path(num_frames, config) == outside
    fast_frames = len(split_video(torch.zeros(num_frames, 1, 1, 4), config).fast)
    seen = min(num_frames, 2) if num_frames < 4 else (num_frames - outside) // 2
    assert fast_frames == seen


def test_spatial_pooling_drops_a_rest() -> None:
    cells = torch.arange(9.0).reshape(1, 3, 3, 1)
    assert pool_frames(cells, 2).flatten().tolist() == [2.0]


def test_slow_tokens_keep_every_token_in_order() -> None:
    tokens = torch.randn(5, 2, 2, 4)
    assert torch.equal(split_video(tokens, small_config()).slow, tokens.reshape(20, 4))


def test_stacking_marks_what_is_padding() -> None:
    long, short = (VisualTokens(torch.randn(n, 4), torch.randn(1, 4)) for n in (5, 2))
    stacked = SlowTokens.stack([short, None, long])
    assert stacked is not None
    assert stacked.is_ragged
    assert stacked.mask.sum(dim=1).tolist() == [2, 0, 5]
    assert torch.equal(stacked.tokens[0, :2], short.slow)
    assert SlowTokens.stack([None, None]) is None


def test_tokens_of_a_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        VisualTokens(torch.zeros(1, 2, 3), torch.zeros(2, 3))


def test_sampled_frames_round_as_the_reference_does() -> None:
    """It divides before it multiplies: 11 · (30 / 22) is 14.999…, though 11 · 30 / 22 is 15."""
    assert sample_fast_frames(30, stride=2, min_frames=22)[11] == 14
