"""What the towers of training see is what videos are: most of it has been through a real encoder."""

import numpy as np
import torch

from sfvqa.lab.tiny.render import as_shares, normalise, render, training_pixels
from sfvqa.lab.tiny.scenes import random_scene

TIMES = np.arange(6, dtype=np.float64)


def test_pixels_are_a_function_of_the_draws() -> None:
    """A resumed run draws the same videos, encoder included."""
    scene = random_scene(np.random.default_rng(1))
    first, second, other = (training_pixels(scene, 64, TIMES, np.random.default_rng(seed)) for seed in (2, 2, 3))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_pixels_stay_those_of_the_scene() -> None:
    rng = np.random.default_rng(4)
    for _ in range(8):
        scene = random_scene(rng)
        clean = normalise(as_shares(render(scene, 64, TIMES)))
        rough = training_pixels(scene, 64, TIMES, rng)
        assert rough.shape == clean.shape == (6, 3, 64, 64)
        assert 0.005 < (rough - clean).abs().mean() < 0.5
