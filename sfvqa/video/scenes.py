"""Where scenes begin, from cheap evidence: which frames to make thumbnails of, and what those say. Reads no video."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sfvqa.video.sampling import SamplingOptions, Timeline, frames_in_range

Floats = NDArray[np.float32]

THUMBNAIL_HEIGHT, THUMBNAIL_WIDTH = 18, 32
"""Pixels of the thumbnails that `find_cuts` was tried on: enough to tell pictures apart, few enough to blur motion."""

MAX_COMPARED_FRAMES = 400
"""Reading their thumbnails bounds what finding cuts costs, whatever the length of the file."""

_LONGEST_GAP_SECONDS = 5.0
_SHORTEST_GAP_SECONDS = 0.5  # a shot that is shorter is no scene, and a dissolve is not cut into steps too small to see

_SURE_DIFFERENCE = 0.5  # above, always a cut; pictures of unrelated scenes: 0.68 in the middle
_LEAST_DIFFERENCE = 0.36  # below, never a cut; pictures of one scene two seconds apart: 0.35 at the 98th percentile
_TIMES_USUAL = 2.0  # in between, a cut has to stand out this much from the differences around it
_NEIGHBOURS = 4  # differences on each side that say what is usual
_LARGEST_SHIFT = 1 / 8  # of the picture, in each direction: a camera that turns this much still shows the same
_LEAST_CONTRAST = 4.0  # standard deviation in grey levels of a picture that shows anything
_FLASH_LEVELS = 25.0  # mean grey levels by which a flash stands out


def frames_to_compare(
    timeline: Timeline, options: SamplingOptions | None = None, *, max_frames: int = MAX_COMPARED_FRAMES
) -> tuple[int, ...]:
    """The frames of the range whose thumbnails `find_cuts` should compare: sorted, at most `max_frames` (2 or more).

    Key frames first, because encoders put one at a cut and they are cheap to read: those at least 0.5 s apart, and
    evenly spread frames where they lie more than 5 s apart. If those are too many, the range is divided into
    `max_frames` equal stretches of time; each gives its first key frame, or, if it has none and the stretch before it
    gave nothing, its first frame. So a cut that is no compared key frame is placed late: by less than 5 s, or, beyond
    some 33 minutes, by less than 3/400 of the range (27 s in an hour).

    >>> frames_to_compare(Timeline([float(second) for second in range(20)], key_frames=[0, 8, 12]))
    (0, 4, 8, 12, 16)
    """
    options = options or SamplingOptions()
    frames = frames_in_range(timeline, options)
    times = timeline.timestamps_seconds
    keys = [frames.start]
    for key in timeline.key_frames:
        if key in frames and times[key] - times[keys[-1]] >= _SHORTEST_GAP_SECONDS:
            keys.append(key)
    compared = {*keys}
    for start, stop in pairwise([*keys, frames.stop - 1]):
        gap = times[stop] - times[start]
        parts = math.ceil(gap / _LONGEST_GAP_SECONDS)
        compared.update(bisect_left(times, times[start] + gap * part / parts, start, stop) for part in range(1, parts))
    if len(compared) <= max_frames:
        return tuple(sorted(compared))
    return _one_a_stretch(times, frames, keys, max_frames)


def _one_a_stretch(times: Sequence[float], frames: range, keys: Sequence[int], max_frames: int) -> tuple[int, ...]:
    first, last = times[frames.start], times[frames.stop - 1]
    compared: list[int] = []
    filled = -1
    for stretch in range(max_frames):
        start, end = (first + (last - first) * place / max_frames for place in (stretch, stretch + 1))
        place = bisect_left(keys, bisect_left(times, start, frames.start, frames.stop))
        if place < len(keys) and times[keys[place]] < end:
            compared.append(keys[place])
        elif filled < stretch - 1 and times[index := bisect_left(times, start, frames.start, frames.stop)] < end:
            compared.append(index)
        else:
            continue
        filled = stretch
    return tuple(compared)


def find_cuts(thumbnails: NDArray[np.uint8], indices: Sequence[int]) -> tuple[int, ...]:
    """Find which of the frames at `indices` begin a scene: each is the first compared frame after a cut.

    thumbnails: [N, h, w] uint8 grey, one a frame, sorted like `indices` [N].
    Two pictures differ as far as they neither correlate (where they fit best, one shifted by up to an eighth over the
    other; brightness and contrast do not count) nor have like grey levels in the four quarters. A cut differs by more
    than is usual around it, within limits. Blank pictures (fades to black, white flashes) are passed over, and so is a
    single brighter or darker one between two that are alike. What remains unseen: a dissolve that is slower than the
    compared frames are apart, and a cut between views of like layout and light.
    """
    if thumbnails.ndim != 3 or thumbnails.dtype != np.uint8 or len(thumbnails) != len(indices):
        raise ValueError(
            f"thumbnails are [N, h, w] uint8 for N indices, got {list(thumbnails.shape)} {thumbnails.dtype} "
            f"for {len(indices)}"
        )
    places = np.flatnonzero(thumbnails.std(axis=(1, 2)) >= _LEAST_CONTRAST)
    places = places[~_are_flashes(thumbnails[places])]
    differences = _differences(thumbnails[places[:-1]], thumbnails[places[1:]])
    return tuple(
        indices[places[step + 1]]
        for step, difference in enumerate(differences)
        if difference >= _threshold(differences, step)
    )


def _threshold(differences: Floats, step: int) -> float:
    around = np.r_[differences[max(step - _NEIGHBOURS, 0) : step], differences[step + 1 : step + 1 + _NEIGHBOURS]]
    usual = float(np.median(around)) if around.size else 0.0
    return min(max(_TIMES_USUAL * usual, _LEAST_DIFFERENCE), _SURE_DIFFERENCE)


def _are_flashes(pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pictures stand out by their brightness from both neighbours, which show the same."""
    flashes = np.zeros(len(pictures), np.bool_)
    if len(pictures) > 2:
        levels = pictures.mean(axis=(1, 2))
        before, after = levels[1:-1] - levels[:-2], levels[1:-1] - levels[2:]
        stands_out = (before * after > 0) & (np.minimum(abs(before), abs(after)) > _FLASH_LEVELS)
        flashes[1:-1] = stands_out & (_differences(pictures[:-2], pictures[2:]) < _LEAST_DIFFERENCE)
    return flashes


def _differences(earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> Floats:
    """How much each pair of pictures [N, h, w] differs, 0 (same) to 1: the geometric mean of both measures."""
    differences: Floats = np.sqrt(_dissimilarity(earlier, later) * _level_difference(earlier, later))
    return differences


def _dissimilarity(earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> Floats:
    """1 - the best correlation over all small shifts, 0 to 1."""
    height, width = earlier.shape[1:]
    best = np.zeros(len(earlier), np.float32)
    for down in range(-int(height * _LARGEST_SHIFT), int(height * _LARGEST_SHIFT) + 1):
        for right in range(-int(width * _LARGEST_SHIFT), int(width * _LARGEST_SHIFT) + 1):
            one = _standardised(earlier[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)])
            other = _standardised(
                later[:, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
            )
            best = np.maximum(best, (one * other).sum(axis=1))
    return np.clip(1 - best, 0, 1)


def _standardised(pictures: NDArray[np.uint8]) -> Floats:
    """Pictures [N, h, w] as vectors [N, h * w] of mean 0 and length 1 (0 where a picture is blank)."""
    vectors = pictures.reshape(len(pictures), math.prod(pictures.shape[1:])).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    standardised: Floats = vectors / np.maximum(lengths, 1e-6)
    return standardised


def _level_difference(earlier: NDArray[np.uint8], later: NDArray[np.uint8]) -> Floats:
    """How much of the grey levels (in 8 steps) is not shared, 0 to 1: the mean over the four quarters."""
    middle_row, middle_column = earlier.shape[1] // 2, earlier.shape[2] // 2
    differences = []
    for rows in (slice(None, middle_row), slice(middle_row, None)):
        for columns in (slice(None, middle_column), slice(middle_column, None)):
            one, other = earlier[:, rows, columns] // 32, later[:, rows, columns] // 32
            shares = [(one == level).mean(axis=(1, 2)) - (other == level).mean(axis=(1, 2)) for level in range(8)]
            differences.append(np.abs(shares).sum(axis=0) / 2)
    mean: Floats = np.mean(differences, axis=0).astype(np.float32)
    return mean
