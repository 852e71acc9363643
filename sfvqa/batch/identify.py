"""The ids of the items of a video, by what is in the file."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from sfvqa.batch.item import UNREADABLE, Question, VideoItems, item_id
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.watchdog import TooLateError, within
from sfvqa.errors import ReadTimeoutError, UnreadableVideoError, VideoError
from sfvqa.video.readers.local_file import FileState
from sfvqa.wording import plural


@dataclass(frozen=True)
class Identified:
    """The questions about a video, the file's state just before it was hashed, and why it cannot be read."""

    asked: list[Question]
    file: FileState | None
    failure: Failure | None = None


def identify(items: VideoItems, options: BatchOptions) -> Identified:
    """Hash a video, within the time limit, for the ids of its items."""
    video, limit_seconds = items[0].video, options.reading_within_limits.timeout_seconds
    failure: Failure | None = None
    try:
        file, content = within(limit_seconds, lambda: (_state_of(video), options.content_of(video)))
    except (TooLateError, VideoError, OSError) as error:
        file, content, failure = None, UNREADABLE, Failure.of(_why_unreadable(error, video, limit_seconds))
    return Identified([Question(item, item_id(item, content, options.settings)) for item in items], file, failure)


def not_in_time(path: Path, seconds: float, what: str) -> ReadTimeoutError:
    """The error for a file that the system did not deliver."""
    return ReadTimeoutError(
        f"“{path}” was not {what} within {plural(seconds, 'second')}.",
        "Check its disk or server, or allow more with --item-timeout or --read-timeout.",
    )


def _state_of(video: Path) -> FileState | None:
    with contextlib.suppress(OSError):  # hashing raises the same, with a better message
        return FileState.of(video)
    return None


def _why_unreadable(error: Exception, video: Path, limit_seconds: float) -> VideoError:
    if isinstance(error, VideoError):
        return error
    if isinstance(error, OSError):  # it went away, or was forbidden, between two looks at it
        reason = f"“{video}” cannot be read: {error.strerror or error}."
        return UnreadableVideoError(reason, "Check that it is there, and retry.")
    return not_in_time(video, limit_seconds, "hashed")
