"""Videos of another world have the form that training needs, come in every kind, and depend on the generator alone."""

import numpy as np
import pytest

from sfvqa.lab.tiny.other_videos import SHARES, OtherKind
from tests.lab.tiny.some_pictures import some_other_videos

OTHERS = some_other_videos()


@pytest.mark.parametrize("kind", OtherKind)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 32])
def test_every_kind_gives_frames_of_every_length(kind: OtherKind, num_frames: int) -> None:
    for seed in range(4):
        clip = OTHERS.draw(np.random.default_rng(seed), 48, num_frames, kind)
        assert clip.kind is kind
        assert clip.frames.shape == (num_frames, 48, 48, 3)
        assert clip.frames.dtype == np.float32
        assert clip.frames.min() >= 0
        assert clip.frames.max() <= 1


def test_a_clip_is_a_function_of_its_generator() -> None:
    first, again, other = (OTHERS.draw(np.random.default_rng(seed), 32, 6).frames for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_kinds_come_in_their_shares() -> None:
    rng = np.random.default_rng(0)
    drawn = [OTHERS.draw(rng, 16, 1).kind for _ in range(1000)]
    assert abs(sum(SHARES.values()) - 1) < 1e-9
    for kind, share in SHARES.items():
        assert abs(drawn.count(kind) / 1000 - share) < 0.05, kind


def test_things_and_cameras_move() -> None:
    rng = np.random.default_rng(0)
    moved = [np.ptp(OTHERS.draw(rng, 32, 8, OtherKind.THINGS).frames, axis=0).max() > 0.1 for _ in range(20)]
    assert sum(moved) > 12
