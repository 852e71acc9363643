"""The published reference's own three samplers, so that its answers and scores can be reproduced.

Source: SHI-Labs/Slow-Fast-Video-Multimodal-LLM (simple_inference_demo.py, train.py, lmms_eval's read_video_pyav2). It
knows no ranges: here each runs over the frames of the range as if they were the whole file.
"""

from fractions import Fraction

import numpy as np

TRAINING_FPS = 4
EVALUATION_FPS = 2


def demo_places(num_available: int, num_frames: int) -> list[int]:
    """The demo: `num_frames` places from the first to the last of `num_available`, rounded down.

    With fewer frames than asked for the reference repeats some; here each comes once. (It also computes round(fps) and
    stops with an error where that is 0, below 0.5 fps, but has no use for it: here such videos work.)

    >>> demo_places(10, 4), demo_places(3, 8)
    ([0, 3, 6, 9], [0, 1, 2])
    """
    # NumPy's own floats: i * (n - 1) / (N - 1) in whole numbers differs from them here and there.
    places: list[int] = np.linspace(0, num_available - 1, min(num_frames, num_available), dtype=int).tolist()
    return places


def training_places(num_available: int, fps: float, num_frames: int) -> list[int]:
    """Training: every round(fps / 4)-th frame, thinned out evenly to `num_frames` if there are more.

    A video below 4 fps gives every frame, as does one whose rate is unknown (fps 0).

    >>> training_places(60, 30.0, 64), training_places(60, 30.0, 4)
    ([0, 8, 16, 24, 32, 40, 48, 56], [8, 24, 40, 56])
    """
    return _capped(range(0, num_available, _step(fps, TRAINING_FPS)), num_frames)


def evaluation_places(num_available: int, fps: float, num_frames: int) -> list[int]:
    """Evaluation: every round(fps / 2)-th frame, thinned out evenly to `num_frames` if there are more.

    round(fps / 2) is 0 up to 1 fps; the reference then takes every frame, and so do we, as where the rate is unknown.

    >>> evaluation_places(60, 25.0, 64), evaluation_places(3, 0.4, 64)
    ([0, 12, 24, 36, 48], [0, 1, 2])
    """
    return _capped(range(0, num_available, _step(fps, EVALUATION_FPS)), num_frames)


def _step(fps: float, target_fps: int) -> int:
    """Frames from one taken frame to the next; halves round to the even number, as in the reference."""
    # 25 fps computed from timestamps may be 25.000000000000004, and that would turn 12.5 from 12 into 13.
    rate = Fraction(fps).limit_denominator(1_000_000)
    return max(round(rate / target_fps), 1)


def _capped(places: range, num_frames: int) -> list[int]:
    if len(places) < num_frames:
        return list(places)
    # In floats like the reference: the ends of `num_frames` equal parts, so the first frame is usually not among them.
    part = len(places) / num_frames
    return [places[round((number + 1) * part - 1)] for number in range(num_frames)]
