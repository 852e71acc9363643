"""Pieces of work spread over several handles, one a thread, with the results in order. Knows nothing of video."""

import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

Handle = TypeVar("Handle")
Result = TypeVar("Result")

_WAITING = 8  # results of one piece that may wait to be taken: what bounds the memory
_PATIENCE_SECONDS = 0.1  # how long a thread waits for room before it looks whether anybody still wants its results
_END = object()


def in_order(
    pieces: Sequence[Callable[[Handle], Iterator[Result]]],
    handles: Sequence[Callable[[], AbstractContextManager[Handle]]],
) -> Generator[Result]:
    """Run every piece on whichever handle is free and yield the results of the first, then of the second, …

    Each handle is entered, used and left by a thread of its own. The first error, of a piece or of entering a handle,
    is raised here in place of the results. Closing the generator stops the threads and waits for them.
    """
    results: list[queue.Queue[object]] = [queue.Queue(_WAITING) for _ in pieces]
    numbers = itertools.count()
    stopped = threading.Event()

    def put(number: int, result: object) -> None:
        while not stopped.is_set():
            try:
                results[number].put(result, timeout=_PATIENCE_SECONDS)
            except queue.Full:
                continue
            break

    def run(enter: Callable[[], AbstractContextManager[Handle]]) -> None:
        number = next(numbers)  # an error of entering the handle stands in for the results of its first piece
        try:
            with enter() as handle:
                while number < len(pieces) and not stopped.is_set():
                    for result in pieces[number](handle):
                        put(number, result)
                        if stopped.is_set():
                            return
                    put(number, _END)
                    number = next(numbers)
        except BaseException as error:  # noqa: BLE001  raised again where the results are taken
            if number < len(pieces):
                put(number, error)

    threads = [threading.Thread(target=run, args=(enter,), daemon=True) for enter in handles[: len(pieces)]]
    for thread in threads:
        thread.start()
    try:
        for waiting in results:
            # Bounded by the pieces: each is taken by some thread in its turn, and ends in _END or an error.
            while (result := waiting.get()) is not _END:
                if isinstance(result, BaseException):
                    try:
                        raise result
                    finally:
                        del result  # else error and traceback would keep each other, and the results in its frames
                yield result  # type: ignore[misc]  # what is neither an end nor an error is a Result
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
