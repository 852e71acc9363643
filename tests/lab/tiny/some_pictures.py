"""A few made-up pictures, which stand in for the collection that tiny's training needs."""

import numpy as np

from sfvqa.lab.tiny.other_videos import OtherVideos
from sfvqa.lab.tiny.pictures import Pictures


def some_pictures() -> Pictures:
    """Four photographs and three cut-outs, of noise: enough to draw clips from."""
    rng = np.random.default_rng(0)
    photographs = tuple(rng.integers(0, 256, size=(120, 160, 3), dtype=np.uint8) for _ in range(4))
    cut_outs = tuple(rng.integers(0, 256, size=(60, 40, 4), dtype=np.uint8) for _ in range(3))
    return Pictures(photographs, cut_outs)


def some_other_videos() -> OtherVideos:
    """Clips of `some_pictures`."""
    return OtherVideos(some_pictures())
