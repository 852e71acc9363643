"""A clock that only runs where it is told to, and how long two of them ran at the same time."""

import time
from types import TracebackType
from typing import Self

import torch

from sfvqa.inference.device import synchronize

HOST = torch.device("cpu")
"""For a Stopwatch of what no device does."""


class Stopwatch:
    """Adds up the seconds of the `with` blocks it is used in, waiting for the device at the end of each.

    `spans` are the times at which it was started and stopped. Used by one thread at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self.spans: list[tuple[float, float]] = []
        self._device = device
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """All blocks together."""
        return sum(stop - start for start, stop in self.spans)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, StopIteration):
            synchronize(self._device)
        self.spans.append((self._start, time.perf_counter()))


def seconds_together(one: Stopwatch, other: Stopwatch) -> float:
    """How long both ran at the same time, in two threads.

    >>> one, other = Stopwatch(HOST), Stopwatch(HOST)
    >>> one.spans, other.spans = [(0, 4), (6, 9)], [(1, 2), (3, 8)]
    >>> seconds_together(one, other)
    4
    """
    together, place = 0.0, 0
    for start, stop in one.spans:
        while place < len(other.spans) and other.spans[place][1] <= start:
            place += 1
        for other_start, other_stop in other.spans[place:]:
            if other_start >= stop:
                break
            together += min(stop, other_stop) - max(start, other_start)
    return together
