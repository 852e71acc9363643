"""The best quantization and number of frames that fit the free memory: pure choices by the estimate. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sfvqa.inference.memory import MemoryEstimate, RunSize, estimate_memory
from sfvqa.registry import Architecture, FastTokens, QuantizationName

BEST_FIRST = (QuantizationName.NONE, QuantizationName.EIGHT_BIT, QuantizationName.FOUR_BIT)
_EIGHTHS = range(8, 0, -1)


@dataclass(frozen=True)
class Fit:
    """How large a run is to be, what it takes, and whether that fits."""

    run: RunSize
    estimate: MemoryEstimate
    fits: bool


def frame_counts(num_frames: int) -> list[int]:
    """What `--frames auto` tries: as many as in training, then seven eighths of them, down to one eighth.

    >>> frame_counts(64)
    [64, 56, 48, 40, 32, 24, 16, 8]
    """
    return list(dict.fromkeys(max(1, num_frames * eighths // 8) for eighths in _EIGHTHS))


def choose_fit(
    sizes: Architecture,
    fast: FastTokens,
    run: RunSize,
    free_bytes: int | None,
    *,
    quantizations: Sequence[QuantizationName],
    frames: Sequence[int],
) -> Fit:
    """The first run that fits, or the last one, which does not: all frames in every quantization, then fewer frames.

    `quantizations` come best first and `frames` most first. Frames are given up after precision, because a model is
    trained with so many of them. Where the free memory is unknown the first run is taken.
    """
    tried = None
    for quantization, num_frames in _worse_and_worse(quantizations, frames):
        resized = replace(run, quantization=quantization, num_frames=num_frames)
        estimate = estimate_memory(sizes, fast, resized)
        tried = Fit(resized, estimate, estimate.fits(free_bytes))
        if tried.fits:
            break
    assert tried is not None, "nothing to choose from"
    return tried


def largest_that_fits(
    sizes: Architecture,
    fast: FastTokens,
    run: RunSize,
    free_bytes: int | None,
    quantizations: Sequence[QuantizationName] = BEST_FIRST,
) -> Fit | None:
    """Below a run that did not fit: the next smaller one that should, None where none does.

    Quantizations better than the run's own are left out, and so is the run itself.
    """
    worse = [quantization for quantization in quantizations if _rank(quantization) >= _rank(run.quantization)]
    for quantization, num_frames in _worse_and_worse(worse, frame_counts(run.num_frames)):
        resized = replace(run, quantization=quantization, num_frames=num_frames)
        if resized == run:
            continue
        estimate = estimate_memory(sizes, fast, resized)
        if free_bytes is not None and estimate.fits(free_bytes):
            return Fit(resized, estimate, fits=True)
    return None


def _worse_and_worse(
    quantizations: Sequence[QuantizationName], frames: Sequence[int]
) -> Iterator[tuple[QuantizationName, int]]:
    for quantization in quantizations:
        yield quantization, frames[0]
    for num_frames in frames[1:]:
        yield quantizations[-1], num_frames


def _rank(quantization: QuantizationName) -> int:
    return BEST_FIRST.index(quantization)
