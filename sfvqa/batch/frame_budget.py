"""Memory for chunks of frames, bounded over all videos that are read at once."""

import threading
import weakref
from collections.abc import Callable

import numpy as np

from sfvqa.inference.reading_ahead import Chunk

_PATIENCE_SECONDS = 1.0  # before it is asked again whether the memory is wanted, and whether there is some


class NoLongerWantedError(Exception):
    """The video that memory was waited for is given up: ends its reading, and is told to nobody."""


class FrameBudget:
    """Hands out memory for chunks while no more than `num_frames` frames of it are alive, whoever holds them.

    What counts is the memory itself: a chunk's frames are given back when the last reference to it goes.
    `num_held` are alive now, and `most_held` were at a time. Safe with several threads.
    """

    def __init__(self, num_frames: int) -> None:
        self.num_frames = num_frames
        self.num_held = 0
        self.most_held = 0
        # Its lock can be taken again by the thread that has it: garbage may be collected, and a chunk go, at any time.
        self._changed = threading.Condition()

    def make_chunk(self, shape: tuple[int, ...], is_wanted: Callable[[], bool]) -> Chunk:
        """Memory `[t, H, W, 3]`, as soon as there is room for its frames; NoLongerWantedError once it is not wanted."""
        with self._changed:
            while self.num_held + shape[0] > self.num_frames and is_wanted():
                self._changed.wait(_PATIENCE_SECONDS)
            if not is_wanted():
                raise NoLongerWantedError
            self.num_held += shape[0]
            self.most_held = max(self.most_held, self.num_held)
        try:
            chunk = np.empty(shape, np.uint8)
        except MemoryError:
            self._give_back(shape[0])
            raise
        weakref.finalize(chunk, self._give_back, shape[0]).atexit = False
        return chunk

    def wake(self) -> None:
        """Have everybody who waits ask again whether the memory is still wanted."""
        with self._changed:
            self._changed.notify_all()

    def _give_back(self, num_frames: int) -> None:
        with self._changed:
            self.num_held -= num_frames
            self._changed.notify_all()
