"""Time limits for what may hang: work in a thread that nobody waits for any longer, and steps that are interrupted."""

import contextlib
import ctypes
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Self, TypeVar

from sfvqa.batch.item import Question
from sfvqa.errors import ExitCode, ItemTimeoutError
from sfvqa.wording import plural

Result = TypeVar("Result")

_LAST_SECONDS = 600.0  # after which a step that cannot be interrupted is ended with the process
_LONGEST_LOOK_SECONDS = 1.0  # between two looks
_SECONDS_TO_WRITE = 5.0
_STDERR = 2  # the file: Python's stream may be locked by what hangs


class TooLateError(Exception):
    """The work was not done in time, and nobody waits for it any longer."""


def within(seconds: float, work: Callable[[], Result], *, undo: Callable[[Result], object] | None = None) -> Result:
    """The result of `work`, or what it raises; TooLateError after that time.

    Native code and system calls cannot be interrupted: the work goes on in a daemon thread, and a late result is given
    to `undo`.
    """
    outcomes: SimpleQueue[Result | BaseException] = SimpleQueue()
    decision = threading.Lock()  # taken for good by whichever comes first: the result or the time limit

    def run() -> None:
        try:
            outcome: Result | BaseException = work()
        except BaseException as error:  # noqa: BLE001  raised again in the thread that waits
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
            del outcome  # or error and traceback would keep each other alive
    return outcome


class _Interruption(BaseException):
    """Raised within the step that hangs; only `step` catches it."""


class Watchdog:
    """A context manager around the steps of one thread, one step at a time.

    A step that makes no progress for `limit_seconds` is interrupted with an ItemTimeoutError. For that Python must come
    to its next instruction: native code that never returns ends only with the process, `_LAST_SECONDS` later, after
    `give_up` was called with the step's questions, in the watchdog's thread.
    """

    def __init__(self, limit_seconds: float, give_up: Callable[[Sequence[Question], ItemTimeoutError], None]) -> None:
        self._limit_seconds = limit_seconds
        self._give_up = give_up
        self._mutex = threading.Lock()
        self._moved_at: float | None = None  # None while there is no step
        self._questions: Sequence[Question] = ()
        self._doing = ""
        self._watched = 0
        self._is_interrupted = False
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sfvqa-watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(_LONGEST_LOOK_SECONDS)

    @contextlib.contextmanager
    def step(self, doing: str, questions: Sequence[Question]) -> Iterator[None]:
        """Watch the block, which is about these questions. ItemTimeoutError if it hangs."""
        with self._mutex:
            self._doing, self._questions, self._watched = doing, questions, threading.get_ident()
            self._is_interrupted, self._moved_at = False, time.monotonic()
        try:
            try:
                yield
            except _Interruption:
                raise
            except BaseException:
                self._leave()
                raise
            self._leave()
        except _Interruption:
            self._is_interrupted, self._moved_at = False, None
            raise self._error() from None

    def moved(self) -> None:
        """Note that the step makes progress."""
        if self._moved_at is not None:
            self._moved_at = time.monotonic()

    def _leave(self) -> None:
        """End the step; an interruption on its way must arrive here, not wherever the thread is by then."""
        with self._mutex:
            self._moved_at = None
        while self._is_interrupted:
            time.sleep(0.001)

    def _watch(self) -> None:
        while not self._is_over.wait(min(self._limit_seconds / 4, _LONGEST_LOOK_SECONDS)):
            with self._mutex:
                still_seconds = 0.0 if self._moved_at is None else time.monotonic() - self._moved_at
                is_new = still_seconds > self._limit_seconds and not self._is_interrupted
                if is_new:
                    self._is_interrupted = True
                    dump_stacks(f"no progress for {plural(self._limit_seconds, 'second')} while {self._doing}")
                    # Python has one function for it; a signal would reach only the main thread.
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._watched), ctypes.py_object(_Interruption)
                    )
            if still_seconds > self._limit_seconds + _LAST_SECONDS:
                self._end_the_process()

    def _end_the_process(self) -> None:
        try:
            self._give_up(self._questions, self._error())
        finally:
            show_cursor = b"\x1b[?25h" if os.isatty(_STDERR) else b""  # which a live display hides
            said = b"Error: The model hangs. What is done is kept.\nRerun the command to resume.\n"
            _unless_stuck(lambda: os.write(_STDERR, show_cursor + said))
            os._exit(ExitCode.FAILED)

    def _error(self) -> ItemTimeoutError:
        return no_progress(self._limit_seconds, self._doing)


def no_progress(seconds: float, doing: str) -> ItemTimeoutError:
    """The error for an item that hangs."""
    return ItemTimeoutError(
        f"No progress for {plural(seconds, 'second')} while {doing}.",
        "Standard error shows where it hung; allow more with --item-timeout, or use fewer frames (--frames).",
    )


def dump_stacks(reason: str) -> None:
    """Write the stack of every thread to standard error."""

    def dump() -> None:
        os.write(_STDERR, f"sfvqa: {reason}; what each thread does:\n".encode())
        faulthandler.dump_traceback(_STDERR, all_threads=True)

    _unless_stuck(dump)


def _unless_stuck(write: Callable[[], object]) -> None:
    """Write, but do not wait for a pipe that nobody reads or a stopped terminal, which may be what hangs."""
    with contextlib.suppress(OSError, ValueError, TooLateError):  # it may be closed
        within(_SECONDS_TO_WRITE, write)
