"""What subtitles are once they are read, and which of their lines are wanted: data and arithmetic, no files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class SubtitleLine:
    """What is shown at one time, on one line; seconds from the first frame of the video."""

    start_seconds: float
    end_seconds: float
    text: str


@dataclass(frozen=True)
class Subtitles:
    """The lines of one video in the order they are shown; `source` says where they are from, for the user."""

    lines: tuple[SubtitleLine, ...]
    source: str
    warnings: tuple[str, ...] = ()


def in_order(cues: Iterable[tuple[float, float, Sequence[str]]]) -> tuple[SubtitleLine, ...]:
    """Cues (start, end, rows of text) as lines in the order they are shown, with nothing said twice.

    Rows that stay on the screen from one cue to the next, as in rolling captions, are kept where they first appear; a
    cue that says what the one before it says only makes it longer. A cue that ends before it starts has no length.

    >>> in_order([(2, 3, ["and", "then"]), (1, 2, ["first", "and"])])[1]
    SubtitleLine(start_seconds=2, end_seconds=3, text='then')
    """
    lines: list[SubtitleLine] = []
    shown: list[str] = []
    for start, end, cue_rows in sorted(cues, key=lambda cue: (cue[0], cue[1])):
        rows = [cleaned for row in cue_rows if (cleaned := " ".join(row.split()))]
        if not rows:
            continue
        end = max(start, end)
        follows_on = bool(lines) and start <= lines[-1].end_seconds + _LONGEST_GAP_SECONDS
        new = rows[_num_staying(shown, rows) :] if follows_on else rows
        if new:
            lines.append(SubtitleLine(start, end, " ".join(new)))
        else:
            lines[-1] = replace(lines[-1], end_seconds=max(end, lines[-1].end_seconds))
        shown = rows
    return tuple(lines)


_LONGEST_GAP_SECONDS = 0.1  # between cues of rolling captions


def _num_staying(before: list[str], rows: list[str]) -> int:
    """How many of the first `rows` are the last ones of `before`."""
    return next((n for n in range(min(len(before), len(rows)), 0, -1) if before[-n:] == rows[:n]), 0)


def lines_between(lines: Sequence[SubtitleLine], start_seconds: float, end_seconds: float) -> list[SubtitleLine]:
    """The lines that are shown at some time from start to end, both included."""
    return [line for line in lines if line.start_seconds <= end_seconds and line.end_seconds >= start_seconds]


def spread_evenly(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items at even steps, each from the middle of its share; all of them where there are no more.

    >>> spread_evenly("abcdef", 3)
    ['b', 'd', 'f']
    """
    if count >= len(items):
        return list(items)
    return [items[(2 * place + 1) * len(items) // (2 * count)] for place in range(count)]
