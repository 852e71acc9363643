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
    exact = np.empty((len(values), _BLOCK), np.float32)
    before, after = np.empty((2, plan.num_outputs, _BLOCK), np.float32)
    # OpenCV rounds halves to the even neighbour, Pillow up: what is added tips the halves, and nothing else.
    tip = 0.5 ** (_WEIGHT_BITS + 1)
    for start in range(0, values.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        width = values[:, block].shape[1]
        exact[:, :width] = values[:, block]
        for phase in plan.phases:
            first, second, third, fourth = (exact[rows, :width] for rows in phase.inputs)
            a, b, c, d = phase.weights
            one, other = before[: len(first), :width], after[: len(first), :width]
            cv2.addWeighted(first, a, second, b, tip, dst=one)
            cv2.addWeighted(third, c, fourth, d, 0, dst=other)
            cv2.add(one, other, dst=output[phase.outputs, block], dtype=cv2.CV_8U)
    for edge in plan.edges:
        weighted = np.asarray(edge.weights, np.int64) @ values[edge.inputs].astype(np.int64)
        output[edge.output] = ((weighted + (1 << _PILLOW_BITS - 1)) >> _PILLOW_BITS).clip(0, 255)
    return output.reshape(plan.num_outputs, *lines.shape[1:])


@lru_cache(maxsize=8)
def _plan(num_inputs: int, num_outputs: int, start: float, stop: float) -> _Pass | None:
    """How the lines from `start` to `stop` become `num_outputs`; None where single precision would not be exact."""
    scale = Fraction(stop - start) / num_outputs
    if scale >= 1:
        return None
    phases, edges = [], []
    inside: dict[int, list[int]] = {}  # by the place of the first output line of the phase
    lines = [_weigh(num_inputs, start + (place + 0.5) * float(scale)) for place in range(num_outputs)]
    for place, (first_input, weights) in enumerate(lines):
        if 0 < first_input <= num_inputs - _NUM_TAPS - 1:
            inside.setdefault(place % scale.denominator, []).append(place)
        else:
            whole = tuple(int(np.floor(weight * 2**_PILLOW_BITS + 0.5)) for weight in weights)
            edges.append(_Edge(place, slice(first_input, first_input + len(whole)), whole))
    for places in inside.values():
        first_input, weights = lines[places[0]]
        if len(weights) != _NUM_TAPS or any(weight * 2**_WEIGHT_BITS % 1 for weight in weights):
            return None
        outputs = slice(places[0], places[-1] + 1, scale.denominator)
        firsts = range(first_input, first_input + _NUM_TAPS)
        length = scale.numerator * (len(places) - 1) + 1
        inputs = tuple(slice(first, first + length, scale.numerator) for first in firsts)
        phases.append(_Phase(outputs, inputs, weights))
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
