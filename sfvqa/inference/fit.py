"""The best quantization and number of frames that fit the free memory: pure choices by the estimate. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from sfvqa.inference.memory import MemoryEstimate, RunSize, estimate_memory
from sfvqa.registry import Architecture, FastTokens, QuantizationName

BEST_FIRST = (QuantizationName.NONE, QuantizationName.EIGHT_BIT, QuantizationName.FOUR_BIT)
_EIGHTHS = range(8, 0, -1)

USE_LESS = "Use fewer frames (--frames), a smaller model, or a device with more free memory."
"""What to do where nothing in particular is known to fit."""


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
    worse = worse or [run.quantization]  # better ones alone may be there
    for quantization, num_frames in _worse_and_worse(worse, frame_counts(run.num_frames)):
        resized = replace(run, quantization=quantization, num_frames=num_frames)
        if resized == run:
            continue
        estimate = estimate_memory(sizes, fast, resized)
        if free_bytes is not None and estimate.fits(free_bytes):
            return Fit(resized, estimate, fits=True)
    return None


def remedy_for(
    sizes: Architecture,
    fast: FastTokens,
    run: RunSize,
    free_bytes: int | None,
    quantizations: Sequence[QuantizationName] = BEST_FIRST,
) -> str:
    """The sentence that names the largest setting that should fit where `run` did not."""
    smaller = largest_that_fits(sizes, fast, run, free_bytes, quantizations)
    if smaller is None:
        in_16_bits = estimate_memory(sizes, fast, replace(run, dtype="bfloat16"))
        if run.dtype == "float32" and free_bytes is not None and in_16_bits.fits(free_bytes):
            return f"--dtype bfloat16 should fit: it needs {gigabytes(in_16_bits.needed_bytes)}."
        return USE_LESS
    flags = []
    if smaller.run.quantization is not run.quantization:
        flags.append(f"--quant {smaller.run.quantization}")
    if smaller.run.num_frames != run.num_frames:
        flags.append(f"--frames {smaller.run.num_frames}")
    return f"{' '.join(flags)} should fit: it needs {gigabytes(smaller.estimate.needed_bytes)}."


def quantizations_on(device: str) -> tuple[QuantizationName, ...]:
    """Those that run on a kind of device, best first: bitsandbytes is for CUDA and the CPU."""
    return BEST_FIRST if device in ("cuda", "cpu") else BEST_FIRST[:1]


def gigabytes(size: int) -> str:
    """`8.9 GB`; below a tenth of one in MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


def _worse_and_worse(
    quantizations: Sequence[QuantizationName], frames: Sequence[int]
) -> Iterator[tuple[QuantizationName, int]]:
    for quantization in quantizations:
        yield quantization, frames[0]
    for num_frames in frames[1:]:
        yield quantizations[-1], num_frames


def _rank(quantization: QuantizationName) -> int:
    return BEST_FIRST.index(quantization)
