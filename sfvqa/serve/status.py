"""How a running server is found: a file a server in the user's runtime folder, which only the user can read.

Imports nothing heavy: `sfvqa ask` looks here before it loads anything.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import platformdirs

import sfvqa
from sfvqa.checkpoints.find import ModelSettings


@dataclass(frozen=True)
class ServerStatus:
    """A server on this machine: `url` for everybody with the key, `socket` with `token` for this user's commands.

    `asked_for` are the settings it was started with, the model None where none was named; `model` is what it serves.
    """

    pid: int
    url: str
    socket: str
    token: str
    version: str
    model: str
    asked_for: dict[str, Any]

    @classmethod
    def new(cls, url: str, model: str, settings: ModelSettings, *, is_named: bool) -> Self:
        """Of this process, with a socket path and a token of its own."""
        folder, pid = runtime_folder(), os.getpid()
        asked_for = asdict(settings) | {"name": str(settings.name) if is_named else None}
        return cls(pid, url, str(folder / f"{pid}.sock"), secrets.token_hex(32), sfvqa.__version__, model, asked_for)

    @property
    def path(self) -> Path:
        """Where it is written."""
        return runtime_folder() / f"{self.pid}.json"

    def write(self) -> None:
        """Let it be found."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(self), file)

    def remove(self) -> None:
        """Let it be found no more."""
        for path in (self.path, Path(self.socket)):
            path.unlink(missing_ok=True)

    def shown(self) -> dict[str, Any]:
        """Without the token."""
        return {name: value for name, value in asdict(self).items() if name != "token"}


def runtime_folder() -> Path:
    """The folder for sockets, made if need be, closed to other users."""
    folder = Path(os.environ.get("SFVQA_RUNTIME_DIR") or platformdirs.user_runtime_dir("sfvqa", appauthor=False))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    return folder


def servers() -> Iterator[ServerStatus]:
    """Those that run; what servers that died left behind is removed."""
    for path in sorted(runtime_folder().glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            status = ServerStatus(**json.loads(path.read_text(encoding="utf-8")))
            if _is_running(status.pid):
                yield status
            else:
                status.remove()


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
