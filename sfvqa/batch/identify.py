"""What is to be asked about a video: the ids of its items, by what is in the file, and those that have no record."""

import contextlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sfvqa.batch.item import UNREADABLE, Question, VideoItems, item_id
from sfvqa.batch.journal import RecordKeeper
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.watchdog import TooLateError, within
from sfvqa.errors import ReadTimeoutError, UnreadableVideoError, VideoError
from sfvqa.inference.question import PromptOptions
from sfvqa.video.readers.local_file import FileState
from sfvqa.video.sampling import SamplingOptions
from sfvqa.wording import plural

if TYPE_CHECKING:
    from sfvqa.inference.reading_ahead import VideoBeingRead


@dataclass(frozen=True, eq=False)
class Opened:
    """What is known once a video is hashed, and opened if need be.

    `questions` are left to ask; `before` counts the other items by the status of their records. `file` is its state
    just before it was hashed. `source` is what to encode, with `sampling`; None where no question is left or there is a
    `failure`.
    """

    questions: tuple[Question, ...]
    before: Counter[str]
    file: FileState | None
    failure: Failure | None
    prompt: PromptOptions
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    source: "VideoBeingRead | Path | None" = None


def identify(items: VideoItems, options: BatchOptions, keeper: RecordKeeper) -> Opened:
    """Hash a video, within the time limit, for the ids of its items, and look up which have a record."""
    video, limit_seconds = items[0].video, options.reading_within_limits.timeout_seconds
    failure: Failure | None = None
    try:
        file, content = within(limit_seconds, lambda: (_state_of(video), options.content_of(video)))
    except (TooLateError, VideoError, OSError) as error:
        file, content, failure = None, UNREADABLE, Failure.of(_why_unreadable(error, video, limit_seconds))
    asked = (Question(item, item_id(item, content, options.settings)) for item in items)
    questions, before = keeper.sort_out(asked, retry_errors=options.retry_errors)
    return Opened(questions, before, file, failure, options.prompt)


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
