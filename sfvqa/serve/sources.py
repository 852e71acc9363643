"""Which videos a request may name: files below folders that were opened to it, uploads, and bytes it brings along.

Nothing is ever fetched, and no name leads out of the folders.
"""

import base64
import binascii
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Self
from urllib.parse import unquote, urlsplit

from sfvqa.errors import UsageError, VideoNotFoundError
from sfvqa.video.readers.local_file import VIDEO_SUFFIXES
from sfvqa.wording import readable_size

_DATA_URL = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*;base64,")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}")
_MOST_LISTED = 1000


class Folders:
    """Folders whose videos may be asked about, by `file://` addresses."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder.resolve(strict=True) for folder in folders]

    def find(self, address: str) -> Path:
        """The file that an address names. VideoNotFoundError for all that lies elsewhere, whether it exists or not."""
        parts = urlsplit(address)
        try:
            path = Path(unquote(parts.path, errors="strict"))
            found = path.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):
            raise _not_here(address) from None
        is_plain = parts.netloc in ("", "localhost") and not (parts.query or parts.fragment) and path.is_absolute()
        if not is_plain or not any(found.is_relative_to(folder) for folder in self._folders):
            raise _not_here(address)
        return found

    def videos(self) -> Iterator[Path]:
        """The files in the folders, those below them too, hidden ones and images left out; at most 1,000."""
        count = 0
        for folder in self._folders:
            for root, names, files in os.walk(folder):
                names[:] = sorted(name for name in names if not name.startswith("."))
                for name in sorted(files):
                    path = Path(root, name)
                    if not name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES:
                        yield path
                        count += 1
                        if count == _MOST_LISTED:
                            return


def _not_here(address: str) -> VideoNotFoundError:
    shown = address if len(address) <= 200 else f"{address[:200]}…"
    return VideoNotFoundError(
        f"“{shown}” is no video in the folders of this server.", "Ask for what /sfvqa/videos lists, or upload it."
    )


@dataclass(eq=False)
class Upload:
    """A video that was sent, under its name by content; `num_users` requests are about it now."""

    id: str
    path: Path
    name: str
    num_bytes: int
    created_at: int
    num_users: int = 0


class Uploads:
    """A context manager that keeps what is sent, `limit_bytes` in all, in a folder of its own that goes with it.

    Where room is short the least recently used go; those in use stay. A video above `largest_bytes` is refused. Safe
    to use from several threads.
    """

    def __init__(self, largest_bytes: int, limit_bytes: int) -> None:
        self.largest_bytes = largest_bytes
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="sfvqa-uploads-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @contextmanager
    def writing(self, name: str) -> "Iterator[Writing]":
        """Take a video piece by piece; it is there, and `upload` of the Writing set, once the block has ended well."""
        descriptor, path = tempfile.mkstemp(prefix="part-", dir=self._folder.name)
        writing = Writing(self, os.fdopen(descriptor, "wb"), name)
        try:
            with writing.file:
                yield writing
            writing.upload = self._take(Path(path), writing)
        finally:
            Path(path).unlink(missing_ok=True)

    def add_data(self, address: str) -> Upload:
        """Take the video of a `data:` address. UsageError for what is none, or too large."""
        header = _DATA_URL.match(address)
        if header is None:
            raise UsageError("The data address holds no base64.", "Write data:video/mp4;base64, and then the video.")
        if len(address) * 3 // 4 > self.largest_bytes + 256:
            raise self.too_large()
        try:
            content = base64.b64decode(address[header.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise UsageError("The data address is no valid base64.", "Encode the video again.") from None
        suffix = (header["type"] or "").rpartition("/")[2]
        with self.writing(f"video.{suffix}" if suffix.isalnum() else "video") as writing:
            writing.write(content)
        assert writing.upload is not None
        return writing.upload

    def find(self, upload_id: str) -> Upload:
        """The upload of that id. VideoNotFoundError where there is none, any more or ever."""
        with self._lock:
            upload = self._uploads.get(upload_id)
            if upload is None:
                raise VideoNotFoundError(f"There is no upload “{upload_id[:80]}”.", "Upload the video again.")
            self._uploads[upload_id] = self._uploads.pop(upload_id)  # the most recently used, now
            return upload

    @contextmanager
    def using(self, upload: Upload) -> Iterator[None]:
        """Keep an upload while the block runs."""
        with self._lock:
            upload.num_users += 1
        try:
            yield
        finally:
            with self._lock:
                upload.num_users -= 1

    def remove(self, upload_id: str) -> None:
        """Forget an upload. VideoNotFoundError where there is none."""
        upload = self.find(upload_id)
        with self._lock:
            self._uploads.pop(upload_id, None)
            upload.path.unlink(missing_ok=True)

    def too_large(self) -> UsageError:
        """The error for a video above the limit."""
        return UsageError(
            f"The video is larger than the {readable_size(self.largest_bytes)} that this server takes.",
            "Start the server with a larger --max-upload, or cut the video.",
        )

    def _take(self, part: Path, writing: "Writing") -> Upload:
        """Give what was written its name; the same content, sent again, is one upload."""
        suffix = Path(writing.name).suffix
        digest = writing.sha256.hexdigest()[:32]
        with self._lock:
            upload_id = f"file-{digest}"
            upload = self._uploads.pop(upload_id, None)
            if upload is None:
                path = Path(self._folder.name, digest + (suffix if _SUFFIX.fullmatch(suffix) else ""))
                part.replace(path)
                upload = Upload(upload_id, path, writing.name, writing.num_bytes, int(time.time()))
            self._uploads[upload_id] = upload
            self._make_room(upload)
        return upload

    def _make_room(self, newest: Upload) -> None:
        total = sum(upload.num_bytes for upload in self._uploads.values())
        for upload in list(self._uploads.values()):
            if total <= self._limit_bytes:
                break
            if upload is not newest and not upload.num_users:
                total -= upload.num_bytes
                del self._uploads[upload.id]
                upload.path.unlink(missing_ok=True)


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
            raise self.uploads.too_large()
        self.sha256.update(content)
        self.file.write(content)
