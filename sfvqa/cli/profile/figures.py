"""Figures of a profile in words: seconds, operations, shares; for people, not for programs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sfvqa.profiling.spread import Spread

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def seconds_text(seconds: float) -> str:
    """Three digits of it.

    >>> seconds_text(0.0123), seconds_text(4.5), seconds_text(123.4), seconds_text(0)
    ('12.3 ms', '4.50 s', '123 s', '0')
    """
    if seconds == 0:
        return "0"
    if seconds < 0.9995:
        return f"{_three_digits(seconds * 1000)} ms"
    return f"{_three_digits(seconds)} s"


def noise_text(spread: "Spread") -> str:
    """` ±4%`: how far the outermost repeat lies from the middle of all; nothing below a half percent."""
    half = (spread.noise or 0) / 2
    return f" ±{half:.0%}" if half >= 0.005 else ""


def operations_text(operations: float) -> str:
    """`18.6 TFLOP`."""
    for size, prefix in _PREFIXES:
        if operations >= size:
            return f"{_three_digits(operations / size)} {prefix}FLOP"
    return f"{operations:.0f} FLOP"


def times_text(ratio: float) -> str:
    """`8.7×`, with two digits behind the point near 1."""
    return f"{ratio:.2f}×" if ratio < 2 else f"{ratio:.1f}×"


def _three_digits(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:,.0f}"
