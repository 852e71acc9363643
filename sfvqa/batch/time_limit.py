"""What may hang in the system, as a file on a server that is gone, is given up in time. Knows nothing of videos."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")


class TooLateError(Exception):
    """The work was not done in time; nobody waits for it any more."""


def within(seconds: float, work: Callable[[], Result], *, undo: Callable[[Result], object] | None = None) -> Result:
    """The result of `work`, or what it raises; TooLateError after that time.

    Native code and system calls cannot be interrupted: the work goes on in a thread of its own, which the process does
    not wait for when it ends, and what comes of it so late is given to `undo`.
    """
    outcomes: SimpleQueue[Result | BaseException] = SimpleQueue()
    decision = threading.Lock()  # taken for good by who is first: the work that is done, or the time that is up

    def run() -> None:
        try:
            outcome: Result | BaseException = work()
        except BaseException as error:  # noqa: BLE001  raised again by who waits for it
            outcome = error
        if decision.acquire(blocking=False):
            outcomes.put(outcome)
        elif undo is not None and not isinstance(outcome, BaseException):
            undo(outcome)

    threading.Thread(target=run, name="sfvqa-within-time", daemon=True).start()
    try:
        outcome = outcomes.get(timeout=seconds)
    except Empty:
        if decision.acquire(blocking=False):
            raise TooLateError from None
        outcome = outcomes.get()
    if isinstance(outcome, BaseException):
        try:
            raise outcome
        finally:
            del outcome  # else error and traceback would keep each other
    return outcome
