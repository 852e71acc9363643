"""Notes which file a path meant, so that opening it again is known to open the same one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sfvqa.errors import UnreadableVideoError


@dataclass(frozen=True)
class FileState:
    """A file as it was when it was first opened."""

    path: Path
    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Note the file at `path` as it is now."""
        status = path.stat()
        return cls(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def check(self) -> None:
        """Raise UnreadableVideoError if the path means another file by now, or that file's content is another.

        One that has only grown, as while it is recorded, still begins with what was there.
        """
        try:
            now = FileState.of(self.path)
        except OSError as error:
            raise _changed(self.path, "is gone") from error
        has_grown = now.size_bytes > self.size_bytes
        if (now.device, now.inode) != (self.device, self.inode) or (now != self and not has_grown):
            raise _changed(self.path, "was changed")


def _changed(path: Path, how: str) -> UnreadableVideoError:
    return UnreadableVideoError(f"“{path}” {how} while it was read.", "Try again when nothing writes to it.")
