"""What is done for a video before the model sees it: which items are left, opening, reading; in threads."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sfvqa.batch.group import VideoGroup
from sfvqa.batch.item import UNREADABLE, item_id
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.batch.time_limit import TooLateError, within
from sfvqa.batch.video_ahead import Prepared, Question, VideoAhead
from sfvqa.errors import ReadTimeoutError, UnreadableVideoError, VideoError
from sfvqa.inference.being_read import start_reading
from sfvqa.inference.device import memory_errors
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.question_answerer import VideoQuestionAnswerer
from sfvqa.video.readers import ReadOptions, VideoReader, open_video
from sfvqa.video.readers.file_state import FileState
from sfvqa.wording import plural

_GRACE_SECONDS = 5.0  # in which a reading process that hangs is ended, and says more


class Preparer:
    """Prepares one video after the other, in several threads. A video of which all is done is not opened."""

    def __init__(self, answerer: VideoQuestionAnswerer, journal: RecordKeeper, options: BatchOptions) -> None:
        self._answerer = answerer
        self._journal = journal
        self._options = options
        self._reading = options.reading_within_limits
        self._fit = answerer.fit(options.crop)

    def __call__(self, video: VideoAhead) -> None:
        """Hand over what is to be asked, and then the video's chunks or what is wrong with it."""
        found = identify(video.work.group, self._options)
        questions, before = sort_out(found.asked, self._journal, self._options)
        prepared = Prepared(questions, before, self._options.prompt, failure=found.failure, file=found.file)
        if not questions or found.failure is not None:
            video.arrive(prepared)
            return
        try:
            with memory_errors("reading the video"):
                self._read(video, prepared)
        except Exception as error:  # noqa: BLE001  becomes the error record of each of its items
            video.arrive(replace(prepared, failure=Failure.of(self._with_own_remedy(error))))

    def _with_own_remedy(self, error: Exception) -> Exception:
        """A reader knows one time-out; where that of an item is the shorter, more of the other would change nothing."""
        if (
            isinstance(error, ReadTimeoutError)
            and self._reading.timeout_seconds < self._options.reading.timeout_seconds
        ):
            return ReadTimeoutError(error.message, error.remedy.replace("--read-timeout", "--item-timeout"))
        return error

    def _read(self, video: VideoAhead, prepared: Prepared) -> None:
        options, path = self._options, video.work.group.video
        sampling = video.work.sampling(options.sampling)
        prepared = replace(prepared, sampling=sampling)
        is_kept = self._answerer.is_kept(path, sampling, reading=self._reading, crop=options.crop)
        if is_kept and not options.reads_subtitles:
            video.arrive(replace(prepared, source=path))
            return
        with _open_in_time(path, self._reading) as reader:
            video.reader = reader
            try:
                prepared = replace(prepared, prompt=self._prompt(reader))
                if is_kept:
                    video.arrive(replace(prepared, source=path))
                    return
                being_read = start_reading(reader, sampling, self._fit, make_chunk=video.make_chunk)
                video.arrive(replace(prepared, source=replace(being_read, chunks=video.chunks())))
                video.feed(being_read.chunks)
            finally:
                video.reader = None

    def _prompt(self, reader: VideoReader) -> PromptOptions:
        options = self._options
        if not options.reads_subtitles:
            return options.prompt
        return replace(options.prompt, subtitles=reader.subtitles(), subtitle_tokens=options.subtitle_tokens)


def sort_out(
    asked: Sequence[Question], journal: RecordKeeper, options: BatchOptions
) -> tuple[tuple[Question, ...], Counter[str]]:
    """Those that are to be asked, and how many of the others have which status."""
    before = Counter(
        journal.done[each.item_id] for each in asked if journal.is_done(each.item_id, retry_errors=options.retry_errors)
    )
    return tuple(each for each in asked if not journal.is_done(each.item_id, retry_errors=options.retry_errors)), before


@dataclass(frozen=True)
class Identified:
    """The items of a video with their ids, the file as it was just before, and why it cannot be read, if so."""

    asked: list[Question]
    file: FileState | None
    failure: Failure | None = None


def identify(group: VideoGroup, options: BatchOptions) -> Identified:
    """Look a video through for the ids of its items, which hold for this content of it."""
    limit_seconds = options.reading_within_limits.timeout_seconds
    failure: Failure | None = None
    try:
        file, content = within(limit_seconds, lambda: (_state_of(group.video), options.content_of(group.video)))
    except (TooLateError, VideoError, OSError) as error:
        file, content, failure = None, UNREADABLE, Failure.of(_why_unreadable(error, group.video, limit_seconds))
    asked = [Question(item, item_id(item, content, options.settings)) for item in group.items]
    return Identified(asked, file, failure)


def _state_of(video: Path) -> FileState | None:
    with contextlib.suppress(OSError):  # which is told of, better, by who looks into the file
        return FileState.of(video)
    return None


def _why_unreadable(error: Exception, video: Path, limit_seconds: float) -> VideoError:
    if isinstance(error, VideoError):
        return error
    if isinstance(error, OSError):  # it went away, or was forbidden, between two looks at it
        reason = f"“{video}” cannot be read: {error.strerror or error}."
        return UnreadableVideoError(reason, "Check that it is there, and try again.")
    return _not_in_time(video, limit_seconds, "looked through")


def _open_in_time(path: Path, reading: ReadOptions) -> VideoReader:
    """Also where this process itself hangs, before another is there to open the file and be killed."""
    try:
        return within(
            reading.timeout_seconds + _GRACE_SECONDS,
            lambda: open_video(path, reading),
            undo=lambda reader: reader.close(),
        )
    except TooLateError:
        raise _not_in_time(path, reading.timeout_seconds, "opened") from None


def _not_in_time(path: Path, seconds: float, what: str) -> ReadTimeoutError:
    return ReadTimeoutError(
        f"“{path}” was not {what} within {plural(seconds, 'second')}.",
        "See whether its disk or server answers, or allow more with --item-timeout or --read-timeout.",
    )
