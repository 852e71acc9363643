"""Where the time to the first token goes, as bars of characters; each stage has a sign of its own, colour or not."""

from itertools import pairwise
from typing import TYPE_CHECKING

from rich.text import Text

from sfvqa.cli.profile.figures import seconds_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sfvqa.profiling.profile import ProfilePoint

_SIGNS = "░▒█▓#+"
_STYLES = ("bright_black", "yellow", "blue", "cyan", "red", "magenta")
_WIDTH, _NARROWEST = 56, 12
_BESIDE = len("   128 frames ") + len(" 12.3 ms ")  # before and behind a bar
_ENTRY = 24  # of the legend


def chart_lines(points: "Sequence[ProfilePoint]", width: int) -> "Iterator[Text]":
    """A bar a number of frames, the longest `_WIDTH` characters or what `width` leaves for it, and below them what the
    signs mean.
    """
    from sfvqa.profiling.stacking import layers_of

    stacks = [layers_of(point) for point in points]
    longest = max(sum(layer.seconds for layer in stack) for stack in stacks)
    room = max(_NARROWEST, min(_WIDTH, width - _BESIDE))
    for point, stack in zip(points, stacks, strict=True):
        line = Text(f"{point.num_frames:>6} frames ")
        edges = [0.0]
        for layer in stack:
            edges.append(edges[-1] + layer.seconds)
        cells = [round(edge / longest * room) for edge in edges]  # of the edges, so that lengths do not drift
        for number, (start, stop) in enumerate(pairwise(cells)):
            line.append(_SIGNS[number] * (stop - start), style=_STYLES[number])
        line.append(f" {seconds_text(point.median('ttft_seconds'))}")
        yield line
    num_beside = max(1, min(3, (width - 1) // _ENTRY))
    names = [layer.name for layer in stacks[0]]
    for first in range(0, len(names), num_beside):
        row = range(len(names))[first : first + num_beside]
        legend = Text(" ")
        for number in row:
            legend.append(f"{_SIGNS[number]} ", style=_STYLES[number])
            legend.append(names[number].ljust(_ENTRY - 2 if number != row[-1] else 0), style="dim")
        yield legend
