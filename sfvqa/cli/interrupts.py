"""Ctrl-C: what ends a whole command, and what ends one answer of a chat."""

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from sfvqa.errors import ExitCode

_DOUBLE_TAP_SECONDS = 1.0  # keys are pressed twice in a hurry, and held down
_STDERR = 2  # Python's own stream may be locked by what was interrupted


class Interrupt:
    """Whether Ctrl-C was pressed: libraries may turn the KeyboardInterrupt into an error of their own.

    The first one lets everything tidy up; another, while that takes its time, ends the process at once.
    """

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.seen:
            _end_now()
        self.seen = True
        # What Python does last it does without handlers, and another one would end it by the signal, not with 130.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt


class ChatInterrupts:
    """Ctrl-C within a chat: it stops the step that is under way, and each step counts its own.

    Between steps it does nothing. Pressed again while a step takes its time to stop, it ends the process, but not
    when it follows the first one at once: a double tap must not cost the conversation.
    """

    def __init__(self) -> None:
        self._in_step = False
        self._pressed_at: float | None = None

    @property
    def seen(self) -> bool:
        """Whether the present step, or else the last one, was stopped."""
        return self._pressed_at is not None

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """What Ctrl-C stops: KeyboardInterrupt is raised somewhere in the block."""
        self._pressed_at, self._in_step = None, True
        try:
            yield
        finally:
            self._in_step = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if not self._in_step:
            return
        if self._pressed_at is None:
            self._pressed_at = time.monotonic()
            raise KeyboardInterrupt
        if time.monotonic() - self._pressed_at > _DOUBLE_TAP_SECONDS:
            _end_now()


@contextlib.contextmanager
def chat_interrupts() -> Iterator[ChatInterrupts]:
    """Handle Ctrl-C as a chat does, and afterwards as before; where it is ignored, as under nohup, it stays so."""
    interrupts = ChatInterrupts()
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and callable(before)
    if ours:
        signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def _end_now() -> None:
    """End the process without tidying up, but for the cursor, which a live display hides.

    A terminal that was stopped, or whose connection hangs, takes nothing, and is not waited for.
    """
    if os.isatty(_STDERR) and os.environ.get("TERM", "dumb") != "dumb":
        is_posix = os.name == "posix"
        with contextlib.suppress(OSError):
            if is_posix:
                os.set_blocking(_STDERR, False)
            os.write(_STDERR, b"\x1b[?25h\n")
        with contextlib.suppress(OSError):
            if is_posix:
                os.set_blocking(_STDERR, True)  # the shell's as well
    os._exit(ExitCode.INTERRUPTED)
