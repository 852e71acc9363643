"""Notes which file a path meant, so that opening it again is known to open the same one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.readers.image_folder import pictures_in


@dataclass(frozen=True)
class FileState:
    """A file, or a folder with the pictures in it, as it was when it was first opened."""

    path: Path
    device: int
    inode: int
    size_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """Note the file at `path` as it is now. Raises OSError."""
        status = path.stat()
        size_bytes, changed_ns = status.st_size, status.st_mtime_ns
        if path.is_dir():  # which does not change itself when a picture in it is written to, but with other files
            pictures = [picture.stat() for picture in pictures_in(path)]
            size_bytes = sum(picture.st_size for picture in pictures)
            changed_ns = max((picture.st_mtime_ns for picture in pictures), default=0)
        return cls(path, status.st_dev, status.st_ino, size_bytes, changed_ns)

    def check(self) -> list[str]:
        """Raise UnreadableVideoError if the path means another file by now, or that file's content is another.

        One that has only grown, as while it is recorded, still begins with what was there: that is a warning.
        """
        try:
            now = FileState.of(self.path)
        except OSError as error:
            raise _changed(self.path, "is gone") from error
        if now == self:
            return []
        if (now.device, now.inode) == (self.device, self.inode) and now.size_bytes > self.size_bytes:
            return [f"“{self.path}” grew while it was read: what was added is not looked at."]
        raise _changed(self.path, "was changed")


def _changed(path: Path, how: str) -> UnreadableVideoError:
    return UnreadableVideoError(f"“{path}” {how} while it was read.", "Try again when nothing writes to it.")
