"""Pillow's bicubic enlarging, bit for bit and at half its cost, where single precision holds its weights exactly.

It does for 360p, the commonest small video, which becomes 576 pixels (5:8); where it does not, there is Pillow itself.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from sfvqa.video.clip import Box, Pixels

_WEIGHT_BITS = 14
"""Weights are multiples of 2^-14, half a unit of which still shows in a sum of weighted pixels: 24 bits in all."""
_PILLOW_BITS = 22
"""Pillow's weights are whole numbers of 2^-22."""
_BLOCK = 576
"""Values of a line that are worked on at a time: what they need in between stays in the processor's cache."""
_NUM_TAPS = 4
_SUPPORT = 2.0

Lines = NDArray[np.float32]
"""Lines of a picture, or of a part of one, in the precision they are weighed in: [n, k]."""


@dataclass(frozen=True)
class _Phase:
    """Every so manieth output line, each of the lines `inputs` with the same `weights`."""

    outputs: slice
    inputs: tuple[slice, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class _Edge:
    """One output line at the border, where Pillow has fewer lines to weigh: whole weights in 2^-22."""

    output: int
    inputs: slice
    weights: tuple[int, ...]


@dataclass(frozen=True)
class _Pass:
    """How lines become more lines, in one direction."""

    num_outputs: int
    phases: tuple[_Phase, ...]
    edges: tuple[_Edge, ...]


def enlarge(pixels: Pixels, width: int, height: int, box: Box | None = None) -> Pixels | None:
    """What Pillow's BICUBIC makes of `box` (left, upper, right, lower) of pixels [H, W, 3] at `width` × `height`.

    None where that cannot be had exactly: for shrinking, and for most factors other than 5:8, 3:4, 1:2 and 1:4.
    """
    left, upper, right, lower = box or (0, 0, pixels.shape[1], pixels.shape[0])
    along_rows = _plan(pixels.shape[1], width, left, right)
    along_columns = _plan(pixels.shape[0], height, upper, lower)
    if along_rows is None or along_columns is None:
        return None
    # Along the rows first, as Pillow: it rounds in between.
    return _apply(along_columns, _transpose(_apply(along_rows, _transpose(pixels))))


def _transpose(pixels: Pixels) -> Pixels:
    """[H, W, 3] → [W, H, 3], for which numpy takes several times as long."""
    return cv2.transpose(pixels).astype(np.uint8, copy=False)


def _apply(plan: _Pass, lines: NDArray[np.uint8]) -> Pixels:
    """Lines [n, m, 3] → [num_outputs, m, 3]."""
    values = lines.reshape(len(lines), -1)
    output = np.empty((plan.num_outputs, values.shape[1]), np.uint8)
    longest = max((len(range(plan.num_outputs)[phase.outputs]) for phase in plan.phases), default=0)
    exact, before, after = (np.empty((size, _BLOCK), np.float32) for size in (len(values), longest, longest))
    for start in range(0, values.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        width = values[:, block].shape[1]
        exact[:, :width] = values[:, block]
        _fill(plan, exact[:, :width], before[:, :width], after[:, :width], output[:, block])
    for edge in plan.edges:
        weighted = np.asarray(edge.weights, np.int64) @ values[edge.inputs].astype(np.int64)
        output[edge.output] = ((weighted + (1 << _PILLOW_BITS - 1)) >> _PILLOW_BITS).clip(0, 255)
    return output.reshape(plan.num_outputs, *lines.shape[1:])


def _fill(plan: _Pass, exact: Lines, before: Lines, after: Lines, output: NDArray[np.uint8]) -> None:
    """Values [n, k] → output [num_outputs, k] but for its edges; `before` and `after` are room to work in."""
    # OpenCV rounds halves to the even neighbour, Pillow up: what is added tips the halves, and nothing else.
    tip = 0.5 ** (_WEIGHT_BITS + 1)
    for phase in plan.phases:
        first, second, third, fourth = (exact[rows] for rows in phase.inputs)
        a, b, c, d = phase.weights
        count = len(first)
        cv2.addWeighted(first, a, second, b, tip, dst=before[:count])
        cv2.addWeighted(third, c, fourth, d, 0, dst=after[:count])
        cv2.add(before[:count], after[:count], dst=output[phase.outputs], dtype=cv2.CV_8U)


@lru_cache(maxsize=8)
def _plan(num_inputs: int, num_outputs: int, start: float, stop: float) -> _Pass | None:
    """How the lines from `start` to `stop` become `num_outputs`; None where single precision would not be exact."""
    scale = Fraction(stop - start) / num_outputs
    if scale >= 1:
        return None
    lines = [_weigh(num_inputs, start + (place + 0.5) * float(scale)) for place in range(num_outputs)]
    phases, edges = [], []
    for first in range(scale.denominator):
        places = range(first, num_outputs, scale.denominator)
        inside = [place for place in places if 0 < lines[place][0] <= num_inputs - _NUM_TAPS - 1]
        if inside:
            first_input, weights = lines[inside[0]]
            if len(weights) != _NUM_TAPS or any(weight * 2**_WEIGHT_BITS % 1 for weight in weights):
                return None
            step = scale.numerator
            stops = [first_input + tap + step * (len(inside) - 1) + 1 for tap in range(_NUM_TAPS)]
            phases.append(
                _Phase(
                    outputs=slice(inside[0], inside[-1] + 1, scale.denominator),
                    inputs=tuple(slice(first_input + tap, stops[tap], step) for tap in range(_NUM_TAPS)),
                    weights=weights,
                )
            )
        for place in set(places) - set(inside):
            first_input, weights = lines[place]
            whole = tuple(int(np.floor(weight * 2**_PILLOW_BITS + 0.5)) for weight in weights)
            edges.append(_Edge(place, slice(first_input, first_input + len(whole)), whole))
    return _Pass(num_outputs, tuple(phases), tuple(edges))


def _weigh(num_inputs: int, center: float) -> tuple[int, tuple[float, ...]]:
    """The first of the input lines around `center`, and the weight of each that there is; they sum up to 1."""
    first = max(0, int(center - _SUPPORT + 0.5))
    last = min(num_inputs, int(center + _SUPPORT + 0.5))
    weights = [_bicubic(place - center + 0.5) for place in range(first, last)]
    return first, tuple(weight / sum(weights) for weight in weights)


def _bicubic(distance: float) -> float:
    """Catmull and Rom's spline (a = -0.5), Pillow's BICUBIC."""
    x = abs(distance)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < _SUPPORT else 0.0
