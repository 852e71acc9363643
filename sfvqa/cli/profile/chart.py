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
_WIDTH = 56


def chart_lines(points: "Sequence[ProfilePoint]") -> "Iterator[Text]":
    """A bar a number of frames, the longest `_WIDTH` characters, and below them what the signs mean."""
    from sfvqa.profiling.stacking import layers_of

    stacks = [layers_of(point) for point in points]
    longest = max(sum(layer.seconds for layer in stack) for stack in stacks)
    for point, stack in zip(points, stacks, strict=True):
        line = Text(f"{point.num_frames:>6} frames ")
        edges = [0.0]
        for layer in stack:
            edges.append(edges[-1] + layer.seconds)
        cells = [round(edge / longest * _WIDTH) for edge in edges]  # of the edges, so that lengths do not drift
        for number, (start, stop) in enumerate(pairwise(cells)):
            line.append(_SIGNS[number] * (stop - start), style=_STYLES[number])
        line.append(f" {seconds_text(point.median('ttft_seconds'))}")
        yield line
    for row in (range(3), range(3, 6)):
        legend = Text("             ")
        for number in row:
            legend.append(f" {_SIGNS[number]}", style=_STYLES[number])
            legend.append(f" {stacks[0][number].name:<21}", style="dim")
        yield legend
