"""A video on standard input, kept in a private temporary file while it is read: readers need to go back and forth."""

import os
import select
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from sfvqa.errors import UnreadableVideoError, UsageError, VideoError
from sfvqa.wording import plural

STANDARD_INPUT = "-"
"""The path that means standard input; a file of that name is reached by its absolute path (a Path drops the `./`)."""

_CHUNK_BYTES = 1 << 20
_SHARE_OF_FREE_SPACE = 0.9
_NAME = "standard input"


@contextmanager
def local_video(path: str | PathLike[str], *, timeout_seconds: float = 600.0) -> Iterator[Path]:
    """Give a path that can be opened: `path` itself, or for `-` a private copy of standard input, deleted afterwards.

    The copy lies in the folder for temporary files (TMPDIR) and may take nine tenths of what is free there.
    timeout_seconds: how long the whole of it may take to come (on Windows a pipe cannot be waited for: for ever).
    Raises UsageError if nothing is connected to standard input but a terminal, UnreadableVideoError if it is empty,
    stalls or does not fit. A VideoError raised while the copy is in use names standard input instead.

    >>> with local_video("clip.mp4") as path:
    ...     print(path)
    clip.mp4
    """
    if str(path) != STANDARD_INPUT:
        yield Path(path)
        return
    source = _connected_input()
    with tempfile.TemporaryDirectory(prefix="sfvqa-") as folder:
        copy = Path(folder) / _NAME
        _spool(source, copy, timeout_seconds)
        try:
            yield copy
        except VideoError as error:
            message = error.message.replace(f"“{copy}”", _NAME)
            raise type(error)(message[:1].upper() + message[1:], error.remedy) from error


def _connected_input() -> int:
    """The file descriptor of standard input, if something other than a keyboard may write to it."""
    try:
        source = sys.stdin.fileno()
        is_terminal = os.isatty(source)
    except (AttributeError, OSError, ValueError) as error:  # closed, or replaced by something without a descriptor
        raise _nothing_comes("it is closed") from error
    if is_terminal:
        raise _nothing_comes("it is a terminal")
    if stat.S_ISDIR(os.fstat(source).st_mode):
        raise _nothing_comes("it is a folder")
    return source


def _nothing_comes(reason: str) -> UsageError:
    return UsageError(
        f"No video comes in on standard input: {reason}.",
        "Connect one, as in “sfvqa ask - 'What happens?' < video.mp4”, or give the path of a video.",
    )


def _spool(source: int, copy: Path, timeout_seconds: float) -> None:
    limit_bytes = int(shutil.disk_usage(copy.parent).free * _SHARE_OF_FREE_SPACE)
    done_bytes = 0
    deadline = time.monotonic() + timeout_seconds
    with copy.open("xb") as target:
        while chunk := _next_chunk(source, deadline, done_bytes):
            done_bytes += len(chunk)
            if done_bytes > limit_bytes:
                raise _too_large(copy.parent, limit_bytes)
            try:
                target.write(chunk)
                target.flush()
            except OSError as error:
                raise _too_large(copy.parent, limit_bytes) from error
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
                f"The video on standard input did not come to an end in time: {plural(done_bytes, 'byte')} came.",
                "Check the command that writes it, allow more with --read-timeout, or save the video to a file first.",
            )
        return os.read(source, _CHUNK_BYTES)
    except OSError as error:
        raise UnreadableVideoError(
            f"Standard input cannot be read: {error.strerror}.", "Save the video to a file first."
        ) from error


def _too_large(folder: Path, limit_bytes: int) -> UnreadableVideoError:
    return UnreadableVideoError(
        f"The video on standard input is larger than the {limit_bytes // 10**6:,} MB that “{folder.parent}” may hold.",
        "Save it to a file and give its path, or set TMPDIR to a folder with more room.",
    )
