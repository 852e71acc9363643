"""The videos of a folder, or those that a pattern means: found by what they hold, named by where they lie in it."""

import glob
import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from sfvqa.batch.glob_pattern import GlobPattern
from sfvqa.batch.video_kinds import is_video
from sfvqa.errors import UsageError
from sfvqa.video.readers.local_file import refuse_address
from sfvqa.wording import plural

_LONGEST_LIST = 5


def list_videos(source: Path | str, notices: list[str] | None = None) -> list[tuple[Path, str]]:
    """The videos in a folder and all within it, or those that a glob means, each with its name, sorted by that.

    A name is relative to the folder, of a glob to the part before its first `*`, with "/" between parts. What has the
    suffix of a video is listed whatever it holds, so that a broken one is not passed over; other files are looked
    into (see `is_video`). Hidden files and folders are left out. A folder of pictures is no video here: name it in a
    manifest.
    Links are followed; a linked folder that is listed anyway, or leads back, is not listed twice. A file that is
    reached under two names is two videos.
    `notices` are told how many files were left out, and what could not be looked into. Raises UsageError when there
    is no such folder, or no video in it.
    """
    refuse_address(str(source))
    folder, pattern = Path(source), None
    if not folder.is_dir() and glob.has_magic(str(source)):
        pattern = GlobPattern(str(source))
        folder = pattern.folder
    if not folder.is_dir():
        raise UsageError(f"There is no folder “{folder}”.", "Check the path.")
    walk = _Walk(folder, pattern)
    found, num_others = [], 0
    for path, name in walk.files():
        if walk.is_video(path):
            found.append((path, name))
        else:
            num_others += 1
    told = walk.describe()
    if num_others:
        told.insert(0, f"Left out as no videos: {num_others:,} of the {plural(num_others + len(found), 'file')}.")
    if not found:
        raise UsageError(f"There is no video in “{source}”.", " ".join(told) or "Check the path.")
    if notices is not None:
        notices += told
    return sorted(found, key=lambda video: video[1])


class _Walk:
    """One way through a folder, and what went wrong on it.

    Folders that really lie there come first, then linked ones by their names, unless they were gone through already.
    So every walk ends, and names do not depend on the order of the disk.
    """

    def __init__(self, folder: Path, pattern: GlobPattern | None) -> None:
        self._folder = folder
        self._pattern = pattern
        self._unreadable: list[str] = []
        self._num_repeated = 0

    def files(self) -> Iterator[tuple[Path, str]]:
        """All that are no folders, links that lead nowhere too, each with its name."""
        waiting = [(False, "")]
        seen: set[tuple[int, int]] = set()
        while waiting:
            is_linked, name = heapq.heappop(waiting)
            path = self._folder / name
            try:
                status = path.stat()
                identity = (status.st_dev, status.st_ino)
                if is_linked and identity in seen:
                    self._num_repeated += 1
                    continue
                seen.add(identity)
                with os.scandir(path) as entries:
                    listed = [entry for entry in entries if not entry.name.startswith(".")]
            except OSError as error:
                self._note_unreadable(path, error)
                continue
            for entry in listed:
                below = f"{name}/{entry.name}" if name else entry.name
                if not _is_folder(entry):
                    if self._pattern is None or self._pattern.matches(below):
                        yield Path(entry.path), below
                elif self._pattern is None or self._pattern.leads_into(below):
                    heapq.heappush(waiting, (is_linked or entry.is_symlink(), below))

    def is_video(self, path: Path) -> bool:
        """As `is_video`; what cannot be looked into is none, and is noted."""
        try:
            return is_video(path)
        except OSError as error:
            if not path.is_symlink():  # one that leads nowhere
                self._note_unreadable(path, error)
            return False

    def describe(self) -> list[str]:
        """What went wrong."""
        told = []
        if self._unreadable:
            shown = sorted(self._unreadable)[:_LONGEST_LIST]
            more = len(self._unreadable) - len(shown)
            told.append(f"Could not be read: {'; '.join(shown)}{f'; and {more:,} more' if more else ''}.")
        if self._num_repeated:
            told.append(
                f"Linked folders that lead to what is listed anyway, and were not entered: {self._num_repeated:,}."
            )
        return told

    def _note_unreadable(self, path: Path, error: OSError) -> None:
        self._unreadable.append(f"“{path}” ({error.strerror or error})")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False
