"""The video of a command, opened when something of it is wanted that the video cache does not hold."""

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sfvqa.errors import UnreadableVideoError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sfvqa.cli.frame_request import FrameRequest
    from sfvqa.cli.render import Notices
    from sfvqa.inference.video_cache.entry import EntryFacts
    from sfvqa.inference.video_cache.key import EncodingKey
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.video.readers import VideoReader
    from sfvqa.video.sampling import SamplingOptions


@contextlib.contextmanager
def video_file(
    video: Path, frames: "FrameRequest", cache: "VideoCache | None", notices: "Notices"
) -> "Iterator[VideoFile]":
    """The video of a command: a file, or a copy of standard input that is gone when the block ends."""
    from sfvqa.video.readers.standard_input import local_video

    with (
        local_video(video, timeout_seconds=frames.read_timeout_seconds) as path,
        VideoFile(path, frames, cache, notices) as file,
    ):
        yield file


class VideoFile:
    """A context manager that closes what it opened.

    A video of which the cache holds nothing at all is opened at once, so that what is wrong with it is found out before
    minutes go into loading a model. `looking_seconds` is what recognising it took, every byte of it if need be. Raises
    VideoError when built, and when it is opened later.
    """

    def __init__(self, path: Path, frames: "FrameRequest", cache: "VideoCache | None", notices: "Notices") -> None:
        self.path = path
        self._frames = frames
        self.cache = cache
        self._reader: VideoReader | None = None
        self._kept: EntryFacts | None = None
        self._kept_with: SamplingOptions | None = None
        began = time.perf_counter()
        with notices.waiting("Looking for the video in the video cache"):
            may_be_kept = self._may_be_kept()
        self.looking_seconds = time.perf_counter() - began
        if not may_be_kept:
            _ = self.reader

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; it is opened again if something of it is wanted."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @property
    def reader(self) -> "VideoReader":
        """The open video. Raises VideoError, RangeOutsideVideoError too."""
        if self._reader is None:
            from sfvqa.video import readers
            from sfvqa.video.reading import check_sampling
            from sfvqa.video.sampling import SamplingOptions

            self._reader = readers.open_video(self.path, self._frames.reading())
            try:
                check_sampling(self._reader, self._frames.sampling(SamplingOptions()))
            except BaseException:
                self._reader.close()
                raise
        return self._reader

    @property
    def to_encode(self) -> "VideoReader | Path":
        """What to encode: the path while nothing had to be opened, since the cache may hold it."""
        return self.path if self._reader is None else self._reader

    def look_up(self, sampling: "SamplingOptions", key_of: "Callable[[VideoCache], EncodingKey]") -> None:
        """Find out what the cache holds of it, sampled so."""
        if self.cache is not None and self._reader is None:
            self._kept, self._kept_with = self.cache.peek(key_of(self.cache), self.path), sampling

    def is_kept(self, sampling: "SamplingOptions") -> bool:
        """Whether `look_up` found it, sampled so: then it is neither read nor encoded."""
        return self._facts(sampling) is not None

    def indices(self, sampling: "SamplingOptions") -> tuple[int, ...]:
        """The frames that would be read, or were, when what is kept was seen."""
        if kept := self._facts(sampling):
            return kept.indices
        from sfvqa.video.reading import choose_unread

        return choose_unread(self.reader, sampling).indices

    def _may_be_kept(self) -> bool:
        try:
            return self.cache is not None and self.cache.may_hold(self.cache.content_of(self.path))
        except UnreadableVideoError:  # of bytes that a reader may do without; if it cannot, it says why
            return False

    def _facts(self, sampling: "SamplingOptions") -> "EntryFacts | None":
        return self._kept if sampling == self._kept_with else None
