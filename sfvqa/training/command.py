"""How each command of this room ends: what is said of errors and of Ctrl-C, and the exit code."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from sfvqa.errors import ExitCode, SfvqaError


def run(command: Callable[[], int], *, stopped: str) -> int:
    """Run a command, which gives its exit code; `stopped` is what Ctrl-C comes to.

    Whoever reads its output may leave, as `head` does, which is no error of ours to tell.
    """
    was_pressed = False

    def press(*_: object) -> None:
        nonlocal was_pressed
        was_pressed = True
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    is_ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if is_ours:
        signal.signal(signal.SIGINT, press)
    try:
        exit_code = command()
        sys.stdout.flush()  # or Python would complain at its end
    except BaseException as error:
        if was_pressed or isinstance(error, KeyboardInterrupt):  # of which libraries may have made another error
            print(stopped, file=sys.stderr)
            return ExitCode.INTERRUPTED
        if isinstance(error, SfvqaError):
            print(error.with_flags, file=sys.stderr)
            return error.exit_code
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            with contextlib.suppress(OSError, ValueError):  # what is left goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.FAILED
        raise
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, before)
    return exit_code


def _has_no_reader() -> bool:
    """Whether nobody reads standard output, or it was another pipe that broke. Windows cannot tell: yes."""
    if not hasattr(select, "poll"):
        return True
    with contextlib.suppress(OSError, ValueError):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # for what is told unasked: that the other end is closed
        return bool(poll.poll(0))
    return False
