"""From the name of a folder, a pattern, a video or a manifest to items: which files are meant, and which are videos."""

import fnmatch
import glob
import heapq
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfvqa.batch.item import Item
from sfvqa.batch.journal import is_stream
from sfvqa.batch.manifest import read_manifest
from sfvqa.errors import UsageError
from sfvqa.inference.question import check_question
from sfvqa.video.readers.local_file import VIDEO_SUFFIXES, check_local_file, refuse_address
from sfvqa.wording import plural

SOUND_SUFFIXES = frozenset((
    ".m4a", ".m4b", ".mka", ".oga", ".opus", ".weba", ".wma", ".ra", ".aac", ".mp3", ".wav", ".flac",
))  # fmt: skip
"""Some of these begin as videos."""

_ALSO_SOURCE_CODE = frozenset((".ts", ".mts"))  # of TypeScript
_HEAD_BYTES = 4096
_STARTS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"GIF87a",
    b"GIF89a",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",  # ASF, WMV
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x00\x00\x01\xb3",  # MPEG-1 and -2 video
    b"\x00\x00\x00\x01\x67",  # H.264: a parameter set, or the mark of a new picture before it
    b"\x00\x00\x01\x67",
    b"\x00\x00\x00\x01\x09",
    b"\x00\x00\x00\x01\x40\x01",  # H.265
    b"\x00\x00\x01\x40\x01",
    b".RMF",  # RealMedia
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01",  # MXF
    b"nut/multimedia container\x00",
    b"YUV4MPEG2 ",
    b"DKIF",  # IVF
    b"\xb7\xd8\x00\x20\x37\x49\xda\x11",  # WTV
)
_MOV_ATOMS = frozenset((b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"))
_NO_VIDEO_BRANDS = (b"M4A", b"M4B", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx ", b"jxl ")
_OGG_VIDEO = (b"\x80theora", b"BBCD\x00", b"OVP80", b"\x01video\x00")
_PACKET_BYTES = (188, 192, 204)  # of an MPEG transport stream: plain, with a time before each, with a sum after each
_LONGEST_LIST = 5


def gather_items(source: str, questions: Sequence[str], notices: list[str] | None = None) -> list[Item]:
    """The items of a folder, a glob, a video file, or a manifest, also one on standard input (`-`) or a pipe.

    Every question is asked about each video of a folder or glob; in a manifest (see `read_manifest`), about the lines
    without a question. A question given twice is asked once. `notices` say what was left out. Raises
    VideoNotFoundError for the name of a video that is not there, UsageError for what else is not there, is none of
    these, or leaves nothing to ask.
    """
    asked = list(dict.fromkeys(check_question(question) for question in questions))
    if not source:  # a variable of the shell that is not set; Path would take it for this folder
        raise UsageError("The name of the source is empty.", "Name a folder, “.” for this one.")
    path = Path(source)
    if _is_manifest(path):
        return read_manifest(source, asked, notices)
    if path.suffix.lower() in VIDEO_SUFFIXES and not path.exists() and not glob.has_magic(source):
        check_local_file(path)
    videos = [(path, path.name)] if path.is_file() else list_videos(source, notices)
    if not asked:  # checked last, since the name of a manifest may be misspelt
        raise UsageError("No question was given.", "Give one with --question, or name a manifest that has them.")
    return [Item(video, name, question) for video, name in videos for question in asked]


def _is_manifest(path: Path) -> bool:
    if is_stream(path):
        return True
    try:
        return path.is_file() and not is_video(path)
    except OSError:  # which reading it as a manifest reports
        return True


def list_videos(source: Path | str, notices: list[str] | None = None) -> list[tuple[Path, str]]:
    """The videos in a folder and its subfolders, or those that match a glob, each with its name, sorted by name.

    A name is relative to the folder, or to the part of a glob before its first `*`, with "/" between parts. A file with
    the suffix of a video is listed whatever it holds, so that a broken one is not missed; other files are opened (see
    `is_video`). Hidden files and folders are left out, and so are folders of pictures. Links are followed; a linked
    folder that is listed anyway, or leads back, is not listed twice. A file under two names is two videos. `notices`
    say how many files were left out, and what could not be read. UsageError for no such folder, or no video in it.
    """
    refuse_address(str(source))
    pattern = None
    folder = Path(source)
    if not folder.is_dir() and glob.has_magic(str(source)):
        pattern = GlobPattern(str(source))
        folder = pattern.folder
    if not folder.is_dir():
        raise UsageError(f"There is no folder “{folder}”.", "Check the path.")
    walk = _Walk(folder, pattern)
    found = sorted(walk.videos(), key=lambda video: video[1])
    told = walk.describe(len(found))
    if not found:
        raise UsageError(f"There is no video in “{source}”.", " ".join(told) or "Check the path.")
    if notices is not None:
        notices += told
    return found


class GlobPattern:
    """A pattern with `*`, `?` and `[…]` within names, and `**` for any number of folders.

    `folder` is where to look: the part before the first of these. Names are relative to it, with "/" between parts.
    Unlike `glob` it leaves the walk to the caller, who can handle links that lead back.
    """

    def __init__(self, pattern: str) -> None:
        parts = Path(pattern).parts
        num_fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
        self.folder = Path(*parts[:num_fixed])
        self._parts = parts[num_fixed:]

    def matches(self, name: str) -> bool:
        """Whether a file matches.

        >>> pattern = GlobPattern("videos/**/*.mp4")
        >>> [pattern.matches(name) for name in ("a.mp4", "one/two/b.mp4", "one/b.txt")]
        [True, True, False]
        """
        return _matches(self._parts, name.split("/"), is_folder=False)

    def leads_into(self, name: str) -> bool:
        """Whether a folder may hold files that match."""
        return _matches(self._parts, name.split("/"), is_folder=True)


def _matches(parts: Sequence[str], names: Sequence[str], *, is_folder: bool) -> bool:
    """Whether the names match the parts, or, as those of a folder, the first of them and leave some."""
    if not parts or not names:
        return bool(parts) if is_folder else not names and tuple(parts) in ((), ("**",))
    if parts[0] == "**":
        rest = [names[place:] for place in range(len(names))]
        return is_folder or len(parts) == 1 or any(_matches(parts[1:], each, is_folder=False) for each in rest)
    return fnmatch.fnmatch(names[0], parts[0]) and _matches(parts[1:], names[1:], is_folder=is_folder)


class _Walk:
    """A walk through a folder, and what went wrong on it.

    Real folders come first, then linked ones by name, unless they were visited already. So every walk ends, and names
    do not depend on the order of the disk.
    """

    def __init__(self, folder: Path, pattern: GlobPattern | None) -> None:
        self._folder = folder
        self._pattern = pattern
        self._unreadable: list[str] = []
        self._num_files = 0
        self._num_repeated = 0

    def videos(self) -> Iterator[tuple[Path, str]]:
        """The videos with their names; links that lead nowhere too, if they are named so."""
        for path, name in self._files():
            self._num_files += 1
            try:
                if is_video(path):
                    yield path, name
            except OSError as error:
                if not path.is_symlink():  # one that leads nowhere
                    self._note_unreadable(path, error)

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Everything that is no folder, with its name."""
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
                    is_link = entry.is_symlink() or getattr(entry, "is_junction", bool)()  # Windows' own, from 3.12 on
                    heapq.heappush(waiting, (is_linked or is_link, below))

    def describe(self, num_videos: int) -> list[str]:
        """What was left out, and what went wrong."""
        told = []
        if num_others := self._num_files - num_videos:
            what = "a video" if num_others == 1 else "videos"
            told.append(f"Skipped {num_others:,} of {plural(self._num_files, 'file')}: not {what}.")
        if self._unreadable:
            shown = sorted(self._unreadable)[:_LONGEST_LIST]
            more = len(self._unreadable) - len(shown)
            told.append(f"Could not be read: {'; '.join(shown)}{f'; and {more:,} more' if more else ''}.")
        if self._num_repeated:
            told.append(f"Skipped {plural(self._num_repeated, 'linked folder')} whose files are listed already.")
        return told

    def _note_unreadable(self, path: Path, error: OSError) -> None:
        self._unreadable.append(f"“{path}” ({error.strerror or error})")


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video, or begins as one. Raises OSError if it cannot be read.

    GIF counts, animated or not, and so do animated WebP and PNG. Pipes and devices go by their suffix, and are not
    opened.
    """
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES - _ALSO_SOURCE_CODE:
        return True
    if suffix in SOUND_SUFFIXES:
        return False
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return suffix in VIDEO_SUFFIXES
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if suffix in _ALSO_SOURCE_CODE:
        return not head or not _is_text(head)
    return begins_as_video(head, status.st_size)


def begins_as_video(head: bytes, size_bytes: int) -> bool:
    """Whether a file of this size begins as a video; `head` has its first 4096 bytes.

    >>> begins_as_video(b"RIFF\\0\\0\\0\\0AVI LIST", 5000), begins_as_video(b"RIFF\\0\\0\\0\\0WAVEfmt ", 5000)
    (True, False)
    """
    return (
        head.startswith(_STARTS)
        or (head.startswith(b"FLV\x01") and len(head) > 4 and bool(head[4] & 1))
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
        or (head.startswith(b"RIFF") and head[8:16] == b"WEBPVP8X" and len(head) > 20 and bool(head[20] & 2))
        or (head.startswith(b"\x89PNG") and b"acTL" in head.split(b"IDAT", 1)[0])
        or (head.startswith(b"OggS") and any(mark in head for mark in _OGG_VIDEO))
        or _begins_as_mov(head, size_bytes)
        or _begins_as_transport_stream(head)
    )


def _begins_as_mov(head: bytes, size_bytes: int) -> bool:
    """An atom that fits into the file: “Be free” is none."""
    if head[4:8] not in _MOV_ATOMS:
        return False
    if head[4:8] == b"ftyp":
        return not head[8:12].startswith(_NO_VIDEO_BRANDS)
    atom_bytes = int.from_bytes(head[:4], "big")
    return atom_bytes in (0, 1) or 8 <= atom_bytes <= size_bytes


def _begins_as_transport_stream(head: bytes) -> bool:
    starts = [(packet_bytes, 4 if packet_bytes == 192 else 0) for packet_bytes in _PACKET_BYTES]
    return not _is_text(head) and any(
        len(head) > start + 4 * packet_bytes and set(head[start : start + 5 * packet_bytes : packet_bytes]) == {0x47}
        for packet_bytes, start in starts
    )


def _is_text(head: bytes) -> bool:
    return not any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head)
