"""Which videos a request may name: files below folders that were opened to it, uploads, and bytes it brings along.

Nothing is ever fetched, and no name leads out of the folders.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import url2pathname

from filelock import FileLock, Timeout

from sfvqa.errors import ServerBusyError, UsageError, VideoNotFoundError
from sfvqa.video.readers.local_file import VIDEO_SUFFIXES, pictures_in
from sfvqa.wording import first_few, readable_size

LARGEST_DATA_BYTES = 32 << 20
"""Of a video in a request: the request is in memory several times over while it is read."""
_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]{0,100}){0,8};base64,", re.ASCII)
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_MOST_LISTED = 1000
_MOST_UPLOADS = 1000
_LONGEST_SHOWN, _MOST_NAMED = 200, 5


class Folders:
    """Folders whose videos may be asked about."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder.resolve(strict=True) for folder in folders]
        self._drives = {folder.drive.lower() for folder in (*self._folders, *map(Path.absolute, folders))}

    @property
    def names(self) -> list[str]:
        """Their full paths."""
        return list(map(str, self._folders))

    def find(self, address: str) -> Path:
        """The file of a `file://` address. VideoNotFoundError for all that lies elsewhere, whether it exists or not."""
        path = _path_of(address)
        if path is None or (found := self._holding(path)) is None:
            raise VideoNotFoundError(
                f"“{_short(address)}” is no video in the folders of this server.",
                "Ask for what /sfvqa/videos lists, or upload it.",
            )
        return found

    def find_by_path(self, name: str) -> Path:
        """The file of a path, absolute or within one of the folders, or of such an address. VideoNotFoundError."""
        path = _path_of(name) if name.lower().startswith("file:") else Path(name)
        candidates = [] if path is None else [folder / path for folder in self._folders]
        for candidate in candidates:
            if (found := self._holding(candidate)) is not None:
                return found
        some = list(map(str, islice(self.videos(), _MOST_NAMED)))
        raise VideoNotFoundError(
            f"“{_short(name)}” is no video in the folders of this server.",
            f"Ask about one that is, such as {first_few(some)}." if some else "There are no videos in them.",
        )

    def _holding(self, path: Path) -> Path | None:
        """The file without links in its path, if it lies in the folders, and so does all that is read of it."""
        if path.drive.lower() not in self._drives:  # on Windows the name of a server, which would be called on, for one
            return None
        try:
            found = path.resolve(strict=True)
            is_ours = self._hold(found) and all(self._hold(file.resolve()) for file in _pictures(found))
        except (OSError, ValueError, RuntimeError):  # RuntimeError: a link that leads back to itself
            return None
        return found if is_ours else None

    def videos(self) -> Iterator[Path]:
        """The files in the folders, those below them too, hidden ones and images left out; at most 1,000."""
        count = 0
        for folder in self._folders:
            for root, names, files in os.walk(folder):
                names[:] = sorted(name for name in names if not name.startswith("."))
                for name in sorted(files):
                    path = Path(root, name)
                    is_video = not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES
                    if is_video and self._holding(path) is not None:  # a link may lead out of them
                        yield path
                        count += 1
                        if count == _MOST_LISTED:
                            return

    def _hold(self, found: Path) -> bool:
        return any(found.is_relative_to(folder) for folder in self._folders)


def _path_of(address: str) -> Path | None:
    """The absolute path that a `file://` address of this machine names; None for any other text."""
    try:
        parts = urlsplit(address)
        path = Path(url2pathname(parts.path) if os.name == "nt" else os.fsdecode(unquote_to_bytes(parts.path)))
    except ValueError:
        return None
    is_plain = parts.netloc in ("", "localhost") and not (parts.query or parts.fragment) and path.is_absolute()
    return path if is_plain else None


def _pictures(found: Path) -> list[Path]:
    """What is read of a folder, in which each may be a link."""
    return pictures_in(found) if found.is_dir() else []


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


@dataclass(eq=False)
class Upload:
    """A video that was sent, under an id by content and name; `num_users` requests are about it now."""

    id: str
    path: Path
    name: str
    num_bytes: int
    created_at: int
    num_users: int = 0


class Uploads:
    """A context manager that keeps what is sent, `limit_bytes` in all, in a folder of its own that goes with it.

    Where room is short the least recently used go; those in use stay. A video above `largest_bytes` is refused. Safe
    to use from several threads. Folders of processes that were killed go when the next one comes.
    """

    def __init__(self, largest_bytes: int, limit_bytes: int, folder: Path | None = None) -> None:
        self.largest_bytes = largest_bytes
        self._limit_bytes = max(limit_bytes, largest_bytes)
        self._mutex = threading.Lock()
        self._uploads: dict[str, Upload] = {}  # the least recently used first
        parent = (folder or Path(tempfile.gettempdir())).resolve()
        _remove_stale(parent)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = FileLock(self._folder / _LOCK, timeout=0)

    def __enter__(self) -> Self:
        self._lock.acquire(timeout=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def writing(self, name: str) -> "Iterator[Writing]":
        """Take a video piece by piece; it is there, and `upload` of the Writing set, once the block has ended well.

        It counts as in use until it is given to `release`. Raises ServerBusyError where there is no room.
        """
        descriptor, path = tempfile.mkstemp(prefix="part-", dir=self._folder)
        writing = Writing(self, os.fdopen(descriptor, "wb"), name)
        try:
            with or_no_room(), writing.file:
                yield writing
            writing.upload = self._take(Path(path), writing)
        finally:
            Path(path).unlink(missing_ok=True)

    def add_data(self, address: str) -> Upload:
        """Take the video of a `data:` address, as in use. UsageError for what is none, or too large."""
        header = _DATA_URL.match(address)
        if header is None:
            raise UsageError("The data address holds no base64.", "Write data:video/mp4;base64, and then the video.")
        try:
            content = base64.b64decode(address[header.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("The data address is no valid base64.", "Encode the video again.") from None
        if len(content) > LARGEST_DATA_BYTES:
            raise _too_large(LARGEST_DATA_BYTES, "Upload it to /v1/files.")
        suffix = (header["type"] or "").rpartition("/")[2]
        with self.writing(f"video.{suffix}" if suffix.isalnum() else "video") as writing:
            writing.write(content)
        assert writing.upload is not None
        return writing.upload

    def find(self, upload_id: str) -> Upload:
        """The upload of that id. VideoNotFoundError where there is none, any more or ever."""
        with self._mutex:
            return self._find(upload_id)

    def use(self, upload_id: str) -> Upload:
        """The same, in use until it is given to `release`."""
        with self._mutex:
            upload = self._find(upload_id)
            upload.num_users += 1
            return upload

    def release(self, upload: Upload) -> None:
        """A request is done with it."""
        with self._mutex:
            upload.num_users -= 1
            if not upload.num_users and self._uploads.get(upload.id) is not upload:
                _remove(upload.path)

    @property
    def num_bytes(self) -> int:
        """What all of them take."""
        return sum(upload.num_bytes for upload in self.all())

    def all(self) -> list[Upload]:
        """Those there are, the least recently used first."""
        with self._mutex:
            return list(self._uploads.values())

    def remove(self, upload_id: str) -> None:
        """Forget an upload; requests that use it go on. VideoNotFoundError where there is none."""
        with self._mutex:
            self._forget(self._find(upload_id))

    def _find(self, upload_id: str) -> Upload:
        upload = self._uploads.pop(upload_id, None)
        if upload is None:
            raise VideoNotFoundError(f"There is no upload “{_short(upload_id)}”.", "Upload the video again.")
        self._uploads[upload_id] = upload  # the most recently used, now
        return upload

    def _forget(self, upload: Upload) -> None:
        del self._uploads[upload.id]
        if not upload.num_users:
            _remove(upload.path)

    def _take(self, part: Path, writing: "Writing") -> Upload:
        """Give what was written its name; the same content, sent again by that name, is one upload."""
        writing.sha256.update(writing.name.encode("utf-8", "surrogatepass"))
        suffix, digest = Path(writing.name).suffix, writing.sha256.hexdigest()[:32]
        upload_id = f"file-{digest}"
        with self._mutex:
            upload = self._uploads.pop(upload_id, None)
            if upload is None:
                self._make_room(writing.num_bytes)
                path = self._folder / f"{digest}-{time.time_ns()}{suffix if _SUFFIX.fullmatch(suffix) else ''}"
                part.replace(path)
                upload = Upload(upload_id, path, writing.name, writing.num_bytes, int(time.time()))
            self._uploads[upload_id] = upload
            upload.num_users += 1
            return upload

    def _make_room(self, num_bytes: int) -> None:
        total = num_bytes + sum(upload.num_bytes for upload in self._uploads.values())
        for upload in list(self._uploads.values()):
            if total <= self._limit_bytes and len(self._uploads) < _MOST_UPLOADS:
                return
            if not upload.num_users:
                total -= upload.num_bytes
                self._forget(upload)
        if total > self._limit_bytes or len(self._uploads) >= _MOST_UPLOADS:
            raise ServerBusyError("The server has no room for another video.", "Send it again later.")


_PREFIX, _LOCK = "sfvqa-uploads-", "lock"


def _remove_stale(parent: Path) -> None:
    """Remove the folders whose locks nobody holds any more."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, Timeout):
            if (folder / _LOCK).exists():
                with FileLock(folder / _LOCK, timeout=0):
                    pass
                shutil.rmtree(folder, ignore_errors=True)


def _remove(video: Path) -> None:
    """Remove an upload; one that is still open stays on Windows, until the folder goes."""
    with contextlib.suppress(OSError):
        video.unlink(missing_ok=True)


@contextmanager
def or_no_room() -> Iterator[None]:
    """Around what writes a video to the disk: ServerBusyError where that is not possible."""
    try:
        yield
    except OSError as error:
        raise ServerBusyError("The disk has no room for another video.", "Send it again later.") from error


def _too_large(limit_bytes: int, remedy: str) -> UsageError:
    return UsageError(f"The video is larger than the {readable_size(limit_bytes)} that this server takes so.", remedy)


@dataclass(eq=False)
class Writing:
    """An upload that is coming in; `upload` is set once it is whole."""

    uploads: Uploads
    file: IO[bytes]
    name: str
    num_bytes: int = 0
    upload: Upload | None = None
    sha256: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def write(self, content: bytes) -> None:
        """Add to it. UsageError once it is too large."""
        self.num_bytes += len(content)
        if self.num_bytes > self.uploads.largest_bytes:
            raise _too_large(self.uploads.largest_bytes, "Start the server with a larger --max-upload, or cut it.")
        self.sha256.update(content)
        self.file.write(content)
