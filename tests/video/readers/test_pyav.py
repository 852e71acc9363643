"""Work spread over threads: every result once, in order, and nothing left running."""

import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np
import pytest

from sfvqa.video import ReaderName, ReadOptions
from sfvqa.video.readers import open_here
from sfvqa.video.readers.pyav import in_order

from ..conftest import WriteVideo
from ..videos import Recipe, constant_rate, number_in


def piece(number: int, count: int, _handle: str) -> Iterator[tuple[int, int]]:
    for place in range(count):
        time.sleep(0.001 * ((number * 7 + place) % 3))
        yield number, place


@pytest.mark.parametrize("num_handles", [1, 2, 5])
def test_results_come_in_order_whoever_is_first(num_handles: int) -> None:
    pieces = [partial(piece, number, number * 5 % 13) for number in range(20)]
    handles = [partial(nullcontext, f"handle {number}") for number in range(num_handles)]
    expected = [(number, place) for number in range(20) for place in range(number * 5 % 13)]
    assert list(in_order(pieces, handles)) == expected


def test_pieces_run_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)

    def wait(handle: int) -> Iterator[int]:
        together.wait()
        yield handle

    handles: list[Callable[[], AbstractContextManager[int]]] = [lambda: nullcontext(1), lambda: nullcontext(2)]
    assert sorted(in_order([wait, wait], handles)) == [1, 2]


def test_results_wait_in_bounded_number_and_threads_end_when_nobody_takes_them() -> None:
    made: list[int] = []

    def endless(_handle: None) -> Iterator[int]:
        while True:
            made.append(1)
            yield len(made)

    before = threading.active_count()
    handles: list[Callable[[], AbstractContextManager[None]]] = [nullcontext, nullcontext]
    results = in_order([endless, endless], handles)
    next(results)
    time.sleep(0.3)
    assert len(made) < 30
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("where", ["in a piece", "in opening"])
def test_an_error_is_raised_where_results_are_taken(where: str) -> None:
    def fail(_handle: None) -> Iterator[int]:
        yield 1
        raise OSError("gone")

    def fail_to_open() -> AbstractContextManager[None]:
        raise OSError("gone")

    handles: list[Callable[[], AbstractContextManager[None]]] = [nullcontext, nullcontext]
    if where == "in opening":
        handles = [fail_to_open, fail_to_open]
    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        list(in_order([fail, fail], handles))
    assert threading.active_count() == before


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_any_number_of_handles_reads_the_same_frames(video: WriteVideo, num_threads: int) -> None:
    path = video("side_by_side.mp4", Recipe(constant_rate(100), group=10))
    wanted = list(range(0, 100, 3))
    with open_here(path, ReadOptions(ReaderName.PYAV, num_threads=num_threads)) as opened:
        for _ in range(2):
            assert [number_in(frame.pixels) for frame in opened.read(wanted)] == wanted


def test_an_error_keeps_nothing_of_the_results() -> None:
    """Error and traceback kept each other, and with them the pictures of the piece, until garbage was collected."""
    seen: list[weakref.ref[np.ndarray]] = []

    def fail(_handle: None) -> Iterator[np.ndarray]:
        picture = np.zeros(10)
        seen.append(weakref.ref(picture))
        yield picture
        raise ValueError("enough")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            list(in_order([fail], [nullcontext]))
        assert seen[0]() is None
    finally:
        gc.enable()
