"""The door that every path goes through: a local file, a folder of images or standard input; no other file, no host.

And how a file is recognised: as the same one while it is read, and by what it holds.
"""

import codecs
import errno
import hashlib
import json
import os
import re
import select
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Self

from sfvqa.errors import UnreadableVideoError, UsageError, VideoError, VideoNotFoundError
from sfvqa.wording import first_few, plural

# FFmpeg's names of the containers that are opened: formats that name other files or hosts (hls, concat, sdp, dash, imf,
# image2 patterns, …) are too many to list. Of these only mov can name another file, which FFmpeg does not follow unless
# told to. Left out, though harmless: containers of old games and of studios; gif and apng, read elsewhere.
FORMAT_WHITELIST = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,av1,flv,swf,asf,ogg,"
    "mxf,nut,rm,wtv,dv,mjpeg,yuv4mpegpipe,"
    "mp3,wav,w64,flac,aac,ac3,eac3,aiff,au,caf,dts,amr,ape,wv,tta,mpc,mpc8,opus"  # sound, opened to say so
)
PROTOCOL_WHITELIST = "file"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # two letters and more, so that C:/ is a path
_HEAD_BYTES = 4096
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
# No container is free of control characters for as long as a head, except one that begins with words.
_CONTROL_CHARACTER = re.compile("[\x00-\x08\x0e-\x1f]")
_RAW_VIDEO = "YUV4MPEG2 "
_LISTS = {
    "an HLS playlist (m3u8)": re.compile(r"^\s*#EXTM3U"),
    "a concat script": re.compile(r"^\s*ffconcat version|^\s*file\s+['\"]?\S", re.MULTILINE),
    "a session description (sdp)": re.compile(r"^\s*v=0\r?\n[a-z]="),
    "a DASH manifest (mpd)": re.compile(r"<MPD[\s>]", re.IGNORECASE),
    "a playlist": re.compile(
        r"^\s*\[(playlist|reference)\]|<(playlist|CompositionPlaylist|AssetMap|asx|smil)\b", re.IGNORECASE
    ),
}


def check_local_file(path: str | PathLike[str]) -> Path:
    """Return the path if it is a regular local file worth opening, or a folder with pictures in it.

    Opens no pipe or device, which could keep the reader waiting for ever. VideoNotFoundError, UnreadableVideoError.
    """
    refuse_address(path)
    file = Path(path)
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            _refuse_without_pictures(file)
            return file
        if not stat.S_ISREG(status.st_mode):
            what = f"“{path}” is a pipe or device, not a video file."
            raise UnreadableVideoError(what, "Save the video to a file first.")
        if status.st_size == 0:
            raise UnreadableVideoError(f"“{path}” is empty: it has zero bytes.", "Copy or download the video again.")
        with file.open("rb") as stream:
            _refuse_text(file, stream.read(_HEAD_BYTES))
    except PermissionError as error:
        raise UnreadableVideoError(f"“{file}” may not be read by this user.", "Change its permissions.") from error
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        if isinstance(error, ValueError) or error.errno in _NO_SUCH_FILE:
            raise VideoNotFoundError(f"There is no file “{path}”.", "Check the path.") from error
        if error.errno == errno.ELOOP:
            raise UnreadableVideoError(f"“{path}” is a link that leads back to itself.", "Repair the link.") from error
        what = f"“{file}” cannot be read: {error.strerror}."
        raise UnreadableVideoError(what, "Check the disk or copy the file.") from error
    return file


def refuse_address(path: str | PathLike[str]) -> None:
    """Raise UnreadableVideoError for a URL; as text it is shown as it was given, which a Path of it is not any more."""
    if _URL.match(str(path)) and not os.path.exists(path):  # noqa: PTH110  a Path raises for a name that is too long
        raise UnreadableVideoError(f"“{path}” is a URL, and only local files are read.", "Download the video first.")


def _refuse_without_pictures(folder: Path) -> None:
    if not pictures_in(folder):
        others = first_few([file.name for file in pictures_in(folder, UNREAD_SUFFIXES)])
        kinds = ", ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise UnreadableVideoError(
            f"“{folder}” is a folder and holds no images{f' in a format that is read ({others})' if others else ''}.",
            f"Give the path of one video file, or of a folder with images in it ({kinds}).",
        )


def _refuse_text(file: Path, head: bytes) -> None:
    """Refuse text, whatever the suffix: it holds no picture, but may name other files or hosts."""
    text = _text_in(head)
    if text is None:
        return
    for kind, pattern in _LISTS.items():
        if pattern.search(text):
            raise UnreadableVideoError(
                f"“{file}” is {kind}: it names other files or hosts, and only the file itself is read.",
                "Give the path of the video it points to.",
            )
    raise UnreadableVideoError(
        f"“{file}” cannot be read as a video: it is text.",
        "Give the path of a video file; lists of videos are not followed.",
    )


def _text_in(head: bytes) -> str | None:
    """The beginning of a file as text, None if it is binary."""
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = head.decode("utf-16" if is_utf16 else "utf-8-sig", "replace")
    return None if text.startswith(_RAW_VIDEO) or _CONTROL_CHARACTER.search(text) else text


# --- Videos and pictures by their names ---

VIDEO_SUFFIXES = frozenset((
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mj2", ".mkv", ".webm", ".avi", ".divx", ".ts", ".mts",
    ".m2t", ".m2ts", ".mpg", ".mpeg", ".mpe", ".mpv", ".m1v", ".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf",
    ".ogv", ".ogm", ".mxf", ".nut", ".rm", ".rmvb", ".wtv", ".dv", ".mjpg", ".mjpeg", ".y4m", ".ivf", ".obu",
    ".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".gif", ".apng",
))  # fmt: skip
"""A file named so is meant to be a video; if it is none, its items fail, and are not left out."""

IMAGE_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
UNREAD_SUFFIXES = (
    ".arw", ".cr2", ".cr3", ".crw", ".dcm", ".dds", ".djvu", ".dng", ".eps", ".exr", ".fits", ".hdr",
    ".icns", ".ico", ".j2k", ".jp2", ".jpx", ".jxl", ".jxr", ".mrw", ".nef", ".nrw", ".orf", ".pbm", ".pcx",
    ".pef", ".pgm", ".pnm", ".ppm", ".psd", ".qoi", ".raf", ".rw2", ".sgi", ".sr2", ".srw", ".svg", ".tga",
    ".wmf", ".x3f", ".xcf",
)  # fmt: skip


def pictures_in(folder: Path, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The files with the suffix of a picture, in natural order; hidden files and folders within are left out.

    Raises OSError if the folder cannot be listed.
    """
    named = [file for file in folder.iterdir() if file.suffix.lower() in suffixes and not file.name.startswith(".")]
    return sorted((file for file in named if file.is_file()), key=lambda file: natural_order(file.name))


def natural_order(name: str) -> tuple[list[str | int], str]:
    """A key to sort names by: letters without regard to case, a run of digits by its value, equals by the plain name.

    >>> sorted(["frame10.png", "frame2.png", "Frame1.png"], key=natural_order)
    ['Frame1.png', 'frame2.png', 'frame10.png']
    """
    parts = re.split(r"([0-9]+)", name.casefold())  # every second part is a number, so that like is compared with like
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


# --- Which file a path meant, so that a replaced one is noticed ---


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


# --- What a video, or any set of files, holds as a short string: the same for a copy, another after any change ---

WHOLE_LIMIT_BYTES = 32 << 20
"""Files that are no larger, taken together, are hashed in whole: some hundredths of a second."""

SAMPLE_BYTES = 16 << 10
NUM_SAMPLES = 64  # of all files together, but at least the head of each


def hash_content(path: str | Path, *, whole: bool = False) -> str:
    """Hash a video file, or the pictures of a folder: `whole:…` over every byte, or `sampled:…`.

    What is larger than WHOLE_LIMIT_BYTES is sampled, unless `whole`: size, head, tail, places between, and the time of
    its last change, so that only a change under a forged time goes unnoticed. The file's own name and folder do not
    count, names within a folder do. Raises VideoError for what could not be opened as a video.
    """
    file = check_local_file(path)
    try:
        if file.is_dir():
            return hash_files(pictures_in(file), whole=whole)
        return _hash([("", file)], whole=whole)
    except FileNotFoundError as error:
        raise VideoNotFoundError(f"“{error.filename or path}” is gone.", "Check the path, and try again.") from error
    except OSError as error:
        raise UnreadableVideoError(
            f"“{error.filename or path}” cannot be read: {error.strerror or error}.", "Check the disk or copy the file."
        ) from error


def hash_files(files: Iterable[Path], *, whole: bool = False) -> str:
    """Hash files of one folder, with their names and order, as `hash_content` does. Raises OSError."""
    return _hash([(file.name, file) for file in files], whole=whole)


def _hash(named: list[tuple[str, Path]], *, whole: bool) -> str:
    is_whole = whole or sum(file.stat().st_size for _, file in named) <= WHOLE_LIMIT_BYTES
    num_samples = max(1, NUM_SAMPLES // max(1, len(named)))
    digest = hashlib.sha256()
    for name, file in named:
        facts = [name, *(_every_byte(file) if is_whole else _samples(file, num_samples))]
        digest.update(json.dumps(facts).encode() + b"\n")  # ASCII, also for names that are not UTF-8
    return f"{'whole' if is_whole else 'sampled'}:{digest.hexdigest()}"


def _every_byte(file: Path) -> list[str | int]:
    with file.open("rb") as stream:
        return [hashlib.file_digest(stream, "sha256").hexdigest()]


def _samples(file: Path, num_samples: int) -> list[str | int]:
    """Size, time of the last change, and a hash of samples: the head, the tail, and others evenly between."""
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        status = os.fstat(stream.fileno())
        last = max(0, status.st_size - SAMPLE_BYTES)
        for number in range(num_samples):
            stream.seek(last * number // max(1, num_samples - 1))
            digest.update(stream.read(SAMPLE_BYTES))
    return [status.st_size, status.st_mtime_ns, digest.hexdigest()]


# --- Standard input ---

STANDARD_INPUT = "-"  # a file of that name is reached by its absolute path (a Path drops the `./`)
_STANDARD_INPUT_NAME = "standard input"
_CHUNK_BYTES = 1 << 20
_SHARE_OF_FREE_SPACE = 0.9


@contextmanager
def local_video(path: str | PathLike[str], *, timeout_seconds: float = 600.0) -> Iterator[Path]:
    """Give a path that can be opened: `path` itself, or for `-` a private copy of standard input, deleted afterwards.

    A copy, because readers go back and forth; it lies in TMPDIR and may take nine tenths of what is free there.
    timeout_seconds: how long the whole of it may take to come (on Windows for ever). Raises UsageError if nothing is
    connected to standard input but a terminal, UnreadableVideoError if it is empty, stalls or does not fit. A
    VideoError raised while the copy is in use names standard input instead.
    """
    if str(path) != STANDARD_INPUT:
        yield Path(path)
        return
    source = _connected_input()
    with tempfile.TemporaryDirectory(prefix="sfvqa-") as folder:
        copy = Path(folder) / _STANDARD_INPUT_NAME
        _spool(source, copy, timeout_seconds)
        try:
            yield copy
        except VideoError as error:
            message = error.message.replace(f"“{copy}”", _STANDARD_INPUT_NAME)
            raise type(error)(message[:1].upper() + message[1:], error.remedy) from error


def _connected_input() -> int:
    """The file descriptor of standard input, if something other than a keyboard may write to it."""
    try:
        source = sys.stdin.fileno()
        what = "a terminal" if os.isatty(source) else "a folder" if stat.S_ISDIR(os.fstat(source).st_mode) else None
    except (AttributeError, OSError, ValueError):  # closed, or replaced by something without a descriptor
        what = "closed"
    if what is not None:
        raise UsageError(
            f"No video arrives on standard input: it is {what}.",
            'Connect one, as in “sfvqa ask - "What happens?" < video.mp4”, or give the path of a video.',
        )
    return source


def _spool(source: int, copy: Path, timeout_seconds: float) -> None:
    limit_bytes = int(shutil.disk_usage(copy.parent).free * _SHARE_OF_FREE_SPACE)
    done_bytes = 0
    deadline = time.monotonic() + timeout_seconds
    with copy.open("xb") as target:
        while chunk := _next_chunk(source, deadline, done_bytes):
            done_bytes += len(chunk)
            try:
                if done_bytes > limit_bytes:
                    raise OSError(errno.ENOSPC, "as good as full")
                target.write(chunk)
                target.flush()
            except OSError as error:
                raise UnreadableVideoError(
                    f"The video on standard input is larger than the {limit_bytes // 10**6:,} MB that "
                    f"“{copy.parent.parent}” may hold.",
                    "Save it to a file and give its path, or set TMPDIR to a folder with more room.",
                ) from error
    if not done_bytes:
        raise UnreadableVideoError(
            "Standard input is empty: it ended before the first byte.", "Check the command that writes the video."
        )


def _next_chunk(source: int, deadline: float, done_bytes: int) -> bytes:
    """The next bytes, none at the end."""
    try:
        seconds_left = max(deadline - time.monotonic(), 0.0)
        if os.name != "nt" and not select.select([source], [], [], seconds_left)[0]:
            raise UnreadableVideoError(
                f"The video on standard input did not end in time: {plural(done_bytes, 'byte')} arrived.",
                "Check the command that writes it, allow more with --read-timeout, or save the video to a file first.",
            )
        return os.read(source, _CHUNK_BYTES)
    except OSError as error:
        raise UnreadableVideoError(
            f"Standard input cannot be read: {error.strerror}.", "Save the video to a file first."
        ) from error
