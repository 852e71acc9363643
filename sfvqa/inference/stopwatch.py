"""How long something took, in all the times it was done, and how long two things were done at once. No torch."""

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import torch


class Stopwatch:
    """Adds up the seconds of the `with` blocks it is used in, waiting for the device, if there is one, at their ends.

    `spans` are the times at which it was started and stopped; what was before `since` does not count. Used by one
    thread at a time.
    """

    def __init__(self, device: "torch.device | None" = None) -> None:
        self.spans: list[tuple[float, float]] = []
        self.since = 0.0
        self._device = device
        self._start = 0.0

    @property
    def seconds(self) -> float:
        """All blocks together."""
        return sum(max(stop - max(start, self.since), 0.0) for start, stop in self.spans)

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._device is not None and (kind is None or issubclass(kind, StopIteration)):
            from sfvqa.checkpoints.device import synchronize

            synchronize(self._device)
        self.spans.append((self._start, time.perf_counter()))


def seconds_together(one: Stopwatch, other: Stopwatch) -> float:
    """How long both ran at the same time, in two threads.

    >>> one, other = Stopwatch(), Stopwatch()
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
