"""Runs the command line, with every module of the package imported, without what Python has not got on Windows."""

import builtins
import importlib
import os
import pkgutil
import select
import signal
import socket
import sys
from functools import partial
from typing import Any

import sfvqa

_MODULES = {"fcntl", "grp", "pty", "pwd", "readline", "resource", "termios", "tty"}
# The libraries that are here want the others: O_NONBLOCK, SIGKILL.
_NAMES: dict[Any, tuple[str, ...]] = {
    os: (
        *("O_DIRECTORY", "chown", "fork", "getgid", "getloadavg", "getpgid", "geteuid", "getuid", "killpg", "mkfifo"),
        *("nice", "pread", "sched_getaffinity", "set_blocking", "statvfs", "sysconf"),
    ),
    select: ("poll",),
    signal: ("SIGHUP", "SIGUSR1", "pthread_kill", "setitimer"),
    socket: ("AF_UNIX",),
}


def main() -> None:
    """Take all of that away from the package, not from the libraries, and run the arguments as a command."""
    ours = [module.name for module in pkgutil.walk_packages(sfvqa.__path__, "sfvqa.")]
    ours = [name for name in ours if ".lab" not in name and name not in ("sfvqa.__main__", "sfvqa.lmms_eval")]
    for name in ours:
        importlib.import_module(name)  # and with it the libraries
    for name in [name for name in sys.modules if name.startswith("sfvqa.")]:
        del sys.modules[name]
    vars(socket)["socketpair"] = partial(socket.socketpair, socket.AF_UNIX)  # which asyncio wants here
    for module, names in _NAMES.items():
        for name in names:
            delattr(module, name)
    usual = builtins.__import__

    def found(name: str, importer: Any = None, *more: Any, **others: Any) -> Any:
        if name.partition(".")[0] in _MODULES and importer and str(importer["__name__"]).startswith("sfvqa"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return usual(name, importer, *more, **others)

    vars(builtins)["__import__"] = found
    for name in ours:
        importlib.import_module(name)
    sys.exit(importlib.import_module("sfvqa.cli.exits").run(sys.argv[1:]))


if __name__ == "__main__":
    main()
