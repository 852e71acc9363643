"""VideoCache: the folder of entries, which several processes may use at once, and whose size has a limit.

Whoever reads takes no lock: a file appears whole, under its name, and one that goes is a miss. Whoever writes holds the
one lock while it makes room, writes to a temporary name and renames: the folder is never larger than the limit, and a
temporary file that a lock holder finds is what a killed process left.
"""

import contextlib
import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.errors import SfvqaError
from sfvqa.inference.video_cache.entry import (
    FORMAT_VERSION,
    DamagedEntryError,
    EncodingKey,
    EntryFacts,
    entry_bytes,
    read_entry,
    read_facts,
)
from sfvqa.video.readers.local_file import FileState, check_local_file, hash_content
from sfvqa.wording import plural, readable_size

if TYPE_CHECKING:
    from sfvqa.inference.encode import SeenVideo

DEFAULT_LIMIT_BYTES = 10_000_000_000
LOCK_SECONDS = 10.0
_MOST_REMEMBERED = 100_000
_ENTRY_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{48}\.v[0-9]+\.safetensors")
_TEXT_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{48}\.text")
_PARTIAL_NAME = re.compile(r"\.partial-[0-9a-f]{32}")
_LOCK_NAME = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)


def video_cache_folder() -> Path:
    """Where seen videos are kept: below SFVQA_CACHE_DIR, else the user's cache folder; it need not exist."""
    import platformdirs

    override = os.environ.get("SFVQA_CACHE_DIR")
    root = Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("sfvqa", appauthor=False))
    return root / "videos"


@dataclass(frozen=True)
class Loaded:
    """What was found under a key: `seen` is None for nothing of use; a `warning` says why if it is no plain miss."""

    seen: "SeenVideo | None" = None
    warning: str | None = None


@dataclass(frozen=True)
class StoredEntry:
    """One file of the store: `facts` are None where its header is damaged, `fault` then says how, in a clause."""

    path: Path
    size_bytes: int
    last_used_seconds: float
    facts: EntryFacts | None
    fault: str | None = None


class VideoCache:
    """Seen videos on disk, the least recently used of which go when there would be more than `limit_bytes`.

    Nothing is created before the first `save`. Safe with several threads and processes, whatever their limits.
    `whole_files` has every byte of a video hashed to recognise it, however large it is (see hash_content).
    """

    def __init__(
        self,
        folder: Path | None = None,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        *,
        whole_files: bool = False,
    ) -> None:
        self.folder = video_cache_folder() if folder is None else folder
        self.limit_bytes = limit_bytes
        self._whole_files = whole_files
        self._contents: dict[tuple[FileState, int], str] = {}

    def content_of(self, video: str | Path) -> str:
        """The hash that videos are recognised by; of a file that has not changed it is computed once. VideoError."""
        path = Path(video)
        if path.is_dir():  # whose state says nothing of the files in it
            return hash_content(path, whole=self._whole_files)
        file = check_local_file(path)
        state = (FileState.of(file), file.stat().st_ctime_ns)  # which a forged time of the last change does not hide
        content = self._contents.get(state)
        if content is None:
            content = hash_content(path, whole=self._whole_files)
            if len(self._contents) >= _MOST_REMEMBERED:  # a stream of videos has no end
                self._contents.clear()
            self._contents[state] = content
        return content  # and not what is remembered: another thread may have cleared that

    def may_hold(self, content: str) -> bool:
        """Whether a video is kept in any way, by the names of files alone: with these frames and this model or not."""
        try:
            names = [path.name for path in self.folder.iterdir()]
            return any(name.startswith(_content_name(content)) and _ENTRY_NAME.fullmatch(name) for name in names)
        except OSError:
            return False

    def peek(self, key: EncodingKey, video: Path) -> EntryFacts | None:
        """What is kept under a key, by its header alone; None for nothing of use. `video` is where it lies now."""
        try:
            facts = read_facts(self._path(key))
        except (OSError, DamagedEntryError):
            return None
        return facts.at(video) if facts.key == key.to_dict() else None

    def load(self, key: EncodingKey, video: Path) -> Loaded:
        """What is kept under a key, every byte checked, and marked as used. `video` is where it lies now.

        The visual tokens are on the CPU. A damaged entry is removed, and the warning says so.
        """
        path = self._path(key)
        try:
            seen = read_entry(path, key, video)
        except (FileNotFoundError, NotADirectoryError):
            return Loaded()
        except DamagedEntryError as error:
            self._delete(path)
            return Loaded(warning=f"What was kept of the video is damaged, and was removed: {error}.")
        except OSError as error:
            return Loaded(warning=f"What was kept of the video cannot be read: {_reason(error)}.")
        with contextlib.suppress(OSError):
            _mark_used(path)
        return Loaded(seen)

    def save(self, key: EncodingKey, seen: "SeenVideo") -> str | None:
        """Keep a seen video, in place of what is kept under its key; a warning where that is not possible, else None.

        Raises ValueError for visual tokens in another dtype than the key says, and nothing for what is wrong with the
        disk, the folder or the lock.
        """
        return self._keep("encoded video", self._path(key), *entry_bytes(key, seen))

    def load_text(self, content: str, made_with: str) -> str | None:
        """What `save_text` kept of a video of this content, and marked as used; None for nothing, or nothing whole."""
        path = self._text_path(content, made_with)
        try:
            checksum, _, text = path.read_bytes().partition(b"\n")
        except OSError:
            return None
        if checksum.decode(errors="replace") != hashlib.sha256(text).hexdigest():
            self._delete(path)
            return None
        with contextlib.suppress(OSError):
            _mark_used(path)
        return text.decode()

    def save_text(self, content: str, made_with: str, text: str) -> str | None:
        """Keep what was said in a video, by which model and how; a warning where that is not possible, else None."""
        data = text.encode()
        checksum = f"{hashlib.sha256(data).hexdigest()}\n".encode()
        return self._keep("transcript", self._text_path(content, made_with), checksum, memoryview(data))

    def _keep(self, what: str, path: Path, header: bytes, tensor: memoryview) -> str | None:
        size = len(header) + len(tensor)
        if size > self.limit_bytes:
            limit = readable_size(self.limit_bytes)
            return f"The {what} is not kept: it has {readable_size(size)}, and the limit is {limit}."
        try:
            with self._lock():
                if not self._make_room(size, path):
                    return f"The {what} is not kept: files in {self.folder} cannot be deleted to make room."
                self._write_on_full_disk(path, header, tensor)
        except TimeoutError:
            return f"The {what} is not kept: for {LOCK_SECONDS:.0f} s others were writing to {self.folder}."
        except OSError as error:
            return (
                f"The {what} is not kept: {self.folder} cannot be written: {_reason(error)}. "
                "Set SFVQA_CACHE_DIR to another folder, or use --no-cache."
            )
        return None

    def entries(self) -> list[StoredEntry]:
        """Every entry by its header, the last used first. Raises SfvqaError for a folder that cannot be read."""
        with self._errors_as_sfvqa("read"):
            found = [self._entry(path, status) for path, status in self._files() if _ENTRY_NAME.fullmatch(path.name)]
        return sorted(found, key=lambda entry: entry.last_used_seconds, reverse=True)

    def num_entries(self) -> int:
        """Sound or damaged, which this does not look at. Raises SfvqaError for a folder that cannot be read."""
        with self._errors_as_sfvqa("read"):
            return sum(_ENTRY_NAME.fullmatch(path.name) is not None for path, _ in self._files())

    def size_bytes(self, *, used_since_seconds: float = 0.0) -> int:
        """Of all files, also those being written; or of those used since a time. SfvqaError if it cannot be read."""
        with self._errors_as_sfvqa("read"):
            return sum(status.st_size for _, status in self._files() if status.st_mtime >= used_since_seconds)

    def clear(self) -> int:
        """Delete everything and return how many bytes that were. Raises SfvqaError for what cannot be deleted."""
        with self._errors_as_sfvqa("cleared"):
            if not self.folder.is_dir():
                return 0
            with self._lock():
                sizes = {path: status.st_size for path, status in self._files()}
                stuck = [path for path in sizes if not self._delete(path)]
        if stuck:
            raise SfvqaError(
                f"{plural(len(stuck), 'file')} in {self.folder} cannot be deleted.", "Check who owns them."
            )
        return sum(sizes.values())

    def _path(self, key: EncodingKey) -> Path:
        # With the version in its name, another version of sfvqa neither finds the entry nor calls it damaged.
        return self.folder / f"{_content_name(key.content)}-{key.digest[:48]}.v{FORMAT_VERSION}.safetensors"

    def _text_path(self, content: str, made_with: str) -> Path:
        return self.folder / f"{_content_name(content)}-{hashlib.sha256(made_with.encode()).hexdigest()[:48]}.text"

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Entries, texts and temporary files; what else is in the folder is none of ours."""
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            if any(name.fullmatch(path.name) for name in (_ENTRY_NAME, _TEXT_NAME, _PARTIAL_NAME)):
                with contextlib.suppress(FileNotFoundError):  # evicted meanwhile
                    yield path, path.stat()

    def _entry(self, path: Path, status: os.stat_result) -> StoredEntry:
        facts, fault = None, None
        try:
            facts = read_facts(path)
        except DamagedEntryError as error:
            fault = str(error)
        except OSError as error:
            fault = f"it cannot be read: {_reason(error)}"
        return StoredEntry(path, status.st_size, status.st_mtime, facts, fault)

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Be the only one who writes. TimeoutError when others do for long, OSError where there can be no lock."""
        from filelock import FileLock

        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A soft lock would outlive the process that is killed with it.
        with FileLock(self.folder / _LOCK_NAME, timeout=LOCK_SECONDS, poll_interval=0.02, fallback_to_soft=False):
            yield

    def _make_room(self, new_bytes: int, path: Path) -> bool:
        """Delete what a killed process left, what `path` holds, and then what was used least recently."""

        def goes_anyway(file: Path) -> bool:
            return file.name == path.name or _PARTIAL_NAME.fullmatch(file.name) is not None

        files = sorted(self._files(), key=lambda found: (not goes_anyway(found[0]), found[1].st_mtime_ns))
        total = sum(status.st_size for _, status in files)
        for file, status in files:
            if total + new_bytes <= self.limit_bytes and not goes_anyway(file):
                break
            total -= status.st_size if self._delete(file) else 0
        return total + new_bytes <= self.limit_bytes

    def _write_on_full_disk(self, path: Path, header: bytes, tensor: memoryview) -> None:
        """Write; where the disk is full, once more in the place of what was used least recently."""
        try:
            self._write(path, header, tensor)
        except OSError as error:
            if error.errno not in _FULL or not self._free(len(header) + len(tensor)):
                raise
            self._write(path, header, tensor)

    def _free(self, wanted_bytes: int) -> bool:
        """Delete what was used least recently, as much as is wanted; nothing where there is not so much."""
        files = sorted(self._files(), key=lambda found: found[1].st_mtime_ns)
        if sum(status.st_size for _, status in files) < wanted_bytes:
            return False
        freed = 0
        for file, status in files:
            if freed < wanted_bytes:
                freed += status.st_size if self._delete(file) else 0
        return freed >= wanted_bytes

    def _write(self, path: Path, header: bytes, tensor: memoryview) -> None:
        partial = self.folder / f".partial-{uuid.uuid4().hex}"
        try:
            with partial.open("xb") as stream:
                stream.write(header)
                stream.write(tensor)
            _mark_used(partial)
            partial.replace(path)
        except BaseException:
            self._delete(partial)
            raise

    def _delete(self, path: Path) -> bool:
        """Whether a file is gone; Windows keeps one that somebody has open."""
        try:
            path.unlink(missing_ok=True)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _errors_as_sfvqa(self, what: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise SfvqaError(f"Another process is writing to {self.folder}.", "Try again when it is done.") from error
        except OSError as error:
            raise SfvqaError(
                f"{self.folder} cannot be {what}: {_reason(error)}.",
                "Check who owns the folder, or set SFVQA_CACHE_DIR to another.",
            ) from error


def _content_name(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _mark_used(path: Path) -> None:
    """By the fine clock: the one that the system stamps files with is some milliseconds behind."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
