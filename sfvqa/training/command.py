"""How each command of this room ends: what is said of errors and of Ctrl-C, and the exit code."""

import contextlib
import os
import sys
from collections.abc import Callable

from sfvqa.errors import ExitCode, SfvqaError


def run(command: Callable[[], int], *, stopped: str) -> int:
    """Run a command, which gives its exit code; `stopped` is what Ctrl-C comes to.

    Whoever reads its output may leave, as `head` does, which is no error of ours to tell.
    """
    try:
        exit_code = command()
        sys.stdout.flush()  # or Python would complain at its end
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        return int(error.exit_code)
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):  # what is left goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FAILED)
    return exit_code
