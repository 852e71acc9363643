"""A VideoReader that makes up its frames: as slowly, as badly and with as many of them missing as a test wants."""

import threading
import time
from collections.abc import Callable, Collection, Generator
from pathlib import Path

import numpy as np

from sfvqa.video import Fit, ReaderName, VideoInfo, VideoReader
from sfvqa.video.clip import Pixels


class FakeReader(VideoReader):
    """Frames of noise at one a second; `before` is called with the index of each before it comes.

    `num_given` frames were handed out so far, by the threads in `threads`. `cancelled` is set by `cancel`, and
    `is_closed` by `close`.
    """

    name = ReaderName.PILLOW

    def __init__(
        self,
        num_frames: int,
        *,
        seconds_a_frame: float = 0.0,
        damaged: Collection[int] = (),
        before: Callable[[int], None] = lambda _index: None,
    ) -> None:
        info = VideoInfo(Path("fake.mp4"), num_frames, 1.0, float(num_frames), 64, 48, "fake", 0)
        super().__init__(info, tuple(map(float, range(num_frames))), (0,), [])
        self.num_given = 0
        self.threads: set[threading.Thread] = set()
        self.cancelled = threading.Event()
        self.is_closed = False
        self._seconds_a_frame = seconds_a_frame
        self._damaged = damaged
        self._before = before

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index in indices:
            self.threads.add(threading.current_thread())
            time.sleep(self._seconds_a_frame)
            self._before(index)
            if index in self._damaged:
                yield index, "its data is damaged"
            else:
                self.num_given += 1
                yield index, fit(np.random.default_rng(index).integers(0, 256, (48, 64, 3), np.uint8))

    def cancel(self) -> None:
        self.cancelled.set()

    def close(self) -> None:
        self.is_closed = True
