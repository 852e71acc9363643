"""How a running server is found: a file a server in the user's runtime folder, which only the user can read.

A server holds a lock beside its file for as long as it lives: what a dead one left behind is known by that, and
removed. The lock is a file of its own, as Windows lets nobody read, replace or remove one that is locked.
Imports nothing heavy: `sfvqa ask` looks here before it loads anything.
"""

import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import platformdirs

import sfvqa
from sfvqa.checkpoints.find import ModelSettings, locate
from sfvqa.errors import ServerError
from sfvqa.registry import load_registry
from sfvqa.registry.registry import user_models_path

_MOST_SOCKET_BYTES = 100  # of a path; systems allow 103 to 107
_VARIABLES = (
    *("SFVQA_CACHE_DIR", "SFVQA_MODELS", "SFVQA_REVISIONS", "SFVQA_DEBUG"),
    *("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
    *("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"),
)
"""What else than options may make another answer, or have another model chosen."""


def surroundings() -> dict[str, Any]:
    """All that a process answers by beside its options: the code, variables, and the user's own models."""
    package = Path(sfvqa.__file__).parent
    variables = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    own_models = files_as_they_are([user_models_path()])
    return {"version": sfvqa.__version__, "package": str(package), "variables": variables, "own_models": own_models}


def files_as_they_are(files: Sequence[Path]) -> list[list[Any]]:
    """Names, sizes and times of last change of the files that are there: cheap, and another after any change."""
    found = []
    for file in sorted(files):
        with contextlib.suppress(OSError):
            status = file.stat()
            found.append([file.name, status.st_size, status.st_mtime_ns])
    return found


def downloads_as_they_are() -> list[list[Any]]:
    """Which models of the registry are on this machine, and when that last changed; contents are not looked at."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(cache, "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    repositories = [spec.repo_id for spec in load_registry() if spec.repo_id is not None]
    return [
        found
        for repository in sorted(set(repositories))
        for found in files_as_they_are(list((hub / f"models--{repository.replace('/', '--')}").glob("snapshots/*")))
    ]


@dataclass(frozen=True)
class Served:
    """What a server answers with, by which a command knows that it would answer with the same.

    `asked_for` are the settings that were asked for, the name None where none was; then `downloads` are what there was
    to choose from. `files` are those of the `folder` of the model when it was loaded; random weights have neither.
    `cache_bytes` is the limit of the video cache, None without one. `said_of_choice` and `said_of_plan` are what was
    said of them, the kind of notice before each sentence.
    """

    model: str
    asked_for: dict[str, Any]
    quantization: str
    folder: str
    files: list[list[Any]]
    downloads: list[list[Any]]
    num_frames: int
    strategy: str
    cache_bytes: int | None
    said_of_choice: list[list[str]] = field(default_factory=list)
    said_of_plan: list[list[str]] = field(default_factory=list)
    surroundings: dict[str, Any] = field(default_factory=surroundings)

    def is_the_same(self, name: str | None, settings: ModelSettings, cache_bytes: int) -> bool:
        """Whether a command with these settings, `name` being None where it names no model, would answer the same.

        Errors as `locate`.
        """
        asked_for = asked_for_as_dict(name, settings)
        if self.surroundings != surroundings() or self.cache_bytes != cache_bytes:
            return False
        if any(self.asked_for.get(key) != value for key, value in asked_for.items() if key != "name"):
            return False
        if name is None:
            is_same = self.asked_for["name"] is None and self.downloads == downloads_as_they_are()
        elif settings.random_weights:
            return self.model == name
        else:
            found = locate(name)
            is_same = (found.name, str(found.folder.resolve())) == (self.model, self.folder)
        return is_same and self.files == model_files(Path(self.folder), settings.adapter)


def asked_for_as_dict(name: str | None, settings: ModelSettings) -> dict[str, Any]:
    """Settings with the name that was given, if any."""
    return asdict(settings) | {"name": name}


def model_files(folder: Path, adapter: str | None = None) -> list[list[Any]]:
    """The files of a checkpoint, and of the adapter that it is loaded with, as they are now."""
    folders = (folder, Path(adapter)) if adapter else (folder,)
    return files_as_they_are([file for each in folders for file in each.glob("*") if file.is_file()])


@dataclass(frozen=True)
class ServerStatus:
    """A server on this machine: `url` for everybody with the key, `socket` with `token` for this user's commands.

    `socket` is empty where there is none; `started_at` is in seconds since 1970.
    """

    id: str
    pid: int
    url: str
    socket: str
    token: str
    grace_seconds: float
    started_at: float
    served: Served

    @classmethod
    def new(cls, url: str, served: Served, grace_seconds: float) -> Self:
        """Of this process, with a token of its own. Raises ServerError for a runtime folder that others can change."""
        name = secrets.token_hex(8)
        path = _socket_path(_own_folder(), name)
        return cls(name, os.getpid(), url, path, secrets.token_hex(32), grace_seconds, time.time(), served)

    @contextlib.contextmanager
    def announced(self) -> Iterator[None]:
        """Let it be found while the block runs."""
        part = self._path.with_suffix(".part")
        try:
            with self._lock_path.open("xb") as lock:
                _take_lock(lock)
                with os.fdopen(
                    os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
                ) as file:
                    json.dump(asdict(self), file)
                part.replace(self._path)
                yield
        finally:
            self.remove()

    @property
    def is_running(self) -> bool:
        """Whether the process that wrote it is there; true for a moment, too, where another one asks the same."""
        try:
            with self._lock_path.open("rb") as lock:
                return not _take_lock(lock)
        except OSError:
            return False

    def remove(self) -> None:
        """Remove what it leaves behind; on Windows later, when nobody looks at it any more."""
        with contextlib.suppress(PermissionError):
            for path in (self._lock_path, self._path, *([Path(self.socket)] if self.socket else [])):
                path.unlink(missing_ok=True)
        if self.socket and (folder := Path(self.socket).parent) != self._path.parent:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def shown(self) -> dict[str, Any]:
        """What may be seen of it: not the token."""
        served = self.served
        return {
            "pid": self.pid,
            "url": self.url,
            "model": served.model,
            "quantization": served.quantization,
            "asked_for": served.asked_for,
            "version": served.surroundings["version"],
            "socket": self.socket or None,
            "started_at": self.started_at,
        }

    @property
    def _path(self) -> Path:
        return runtime_folder() / f"{self.id}.json"

    @property
    def _lock_path(self) -> Path:
        return self._path.with_suffix(".lock")


def runtime_folder() -> Path:
    """Where servers are announced; it need not exist."""
    return Path(os.environ.get("SFVQA_RUNTIME_DIR") or platformdirs.user_runtime_dir("sfvqa", appauthor=False))


def servers() -> Iterator[ServerStatus]:
    """Those that run, none of a folder that others can change; what servers that died left behind is removed."""
    folder = runtime_folder()
    if not _is_private(folder):
        return
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(path.read_text(encoding="utf-8"))
            status = ServerStatus(**found | {"served": Served(**found["served"])})
            if status.is_running:
                yield status
            else:
                status.remove()


def _own_folder() -> Path:
    folder = runtime_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # of another user's folder
        folder.chmod(0o700)
    if not _is_private(folder):
        raise ServerError(
            f"The runtime folder {folder} can be changed by others.",
            "Set SFVQA_RUNTIME_DIR to a folder of your own, or remove that one.",
        )
    return folder


def _is_private(folder: Path) -> bool:
    """Whether a folder is this user's alone, and no other user but root can put another one in its place."""
    if not hasattr(os, "getuid"):  # Windows, where it lies in the user's own folder
        return folder.is_dir()
    try:
        here, above = folder.lstat(), [parent.stat() for parent in folder.resolve().parents]
    except OSError:
        return False
    if not stat.S_ISDIR(here.st_mode) or here.st_uid != os.getuid() or here.st_mode & 0o077:
        return False
    return all(
        parent.st_uid in (0, here.st_uid) and (not parent.st_mode & 0o002 or parent.st_mode & stat.S_ISVTX)
        for parent in above
    )


def _socket_path(folder: Path, name: str) -> str:
    """A path that a socket can have: some folders have too long a name, and Windows has no such sockets for us."""
    if not hasattr(socket, "AF_UNIX"):
        return ""
    path = folder / f"{name}.sock"
    if len(os.fsencode(path)) > _MOST_SOCKET_BYTES:
        path = Path(tempfile.mkdtemp(prefix="sfvqa-", dir="/tmp"), f"{name}.sock")
    return str(path)


def _take_lock(file: IO[bytes]) -> bool:
    """Whether nobody else holds it; it goes with the file, or the process, however that ends."""
    from filelock import lock_descriptor

    return lock_descriptor(file.fileno(), blocking=False)
