"""A clock that only runs where it is told to."""

import time
from types import TracebackType
from typing import Self

import torch

from sfvqa.inference.device import synchronize


class Stopwatch:
    """Adds up the seconds of the `with` blocks it is used in, waiting for the device at the end of each."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self._device = device
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None or issubclass(kind, StopIteration):
            synchronize(self._device)
        self.seconds += time.perf_counter() - self._start
