"""What is done for a video before the model sees it: which items are left, opening, reading; in threads."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sfvqa.batch.group import VideoGroup
from sfvqa.batch.item import UNREADABLE, item_id
from sfvqa.batch.options import BatchOptions
from sfvqa.batch.record_keeper import RecordKeeper
from sfvqa.batch.time_limit import TooLateError, within
from sfvqa.batch.video_ahead import Prepared, Question, VideoAhead
from sfvqa.errors import ReadTimeoutError, UnreadableVideoError, VideoError
from sfvqa.inference.being_read import start_reading
from sfvqa.inference.device import memory_errors
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.question_answerer import VideoQuestionAnswerer
from sfvqa.video.readers import ReadOptions, VideoReader, open_video

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
        asked, failure = identify(video.work.group, self._options)
        questions, before = sort_out(asked, self._journal, self._options)
        prepared = Prepared(questions, before, self._options.prompt, failure=failure)
        if not questions or failure is not None:
            video.arrive(prepared)
            return
        try:
            with memory_errors("reading the video"):
                self._read(video, prepared)
        except Exception as error:  # noqa: BLE001  becomes the error record of each of its items
            video.arrive(replace(prepared, failure=error))

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


def identify(group: VideoGroup, options: BatchOptions) -> tuple[list[Question], VideoError | None]:
    """The items of a video with their ids, and why the video cannot be read at all, if so."""
    failure: VideoError | None = None
    limit_seconds = options.reading_within_limits.timeout_seconds
    try:
        content = within(limit_seconds, lambda: options.content_of(group.video))
    except TooLateError:
        content, failure = UNREADABLE, _not_in_time(group.video, limit_seconds, "looked through")
    except VideoError as error:
        content, failure = UNREADABLE, error
    except OSError as error:  # it went away, or was forbidden, between two looks at it
        reason = f"“{group.video}” cannot be read: {error.strerror or error}."
        content, failure = UNREADABLE, UnreadableVideoError(reason, "Check that it is there, and try again.")
    return [Question(item, item_id(item, content, options.settings)) for item in group.items], failure


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
        f"“{path}” was not {what} within {seconds:g} seconds.",
        "See whether its disk or server answers, or allow more with --item-timeout or --read-timeout.",
    )
