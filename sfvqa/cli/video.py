"""The video of a command: opened when something of it is wanted that the video cache does not hold, planned, seen."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sfvqa.cli.answers import tell_what_was_seen
from sfvqa.cli.model import import_once, num_question_tokens
from sfvqa.errors import ModelNotDownloadedError, UnreadableVideoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sfvqa.checkpoints.find import ModelSettings
    from sfvqa.checkpoints.known import ModelSizes
    from sfvqa.checkpoints.plan import Plan
    from sfvqa.cli.frame_options import FrameOptions
    from sfvqa.cli.model import ModelOptions
    from sfvqa.cli.screen import Notices
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.reading_ahead import VideoBeingRead
    from sfvqa.inference.video_cache.entry import EncodingKey, EntryFacts
    from sfvqa.inference.video_cache.store import VideoCache
    from sfvqa.inference.video_qa import VideoQA
    from sfvqa.video.fitting import Fit
    from sfvqa.video.readers import VideoBeingOpened, VideoReader
    from sfvqa.video.sampling import SamplingOptions


def check_video(video: Path) -> None:
    """VideoError, before torch is imported, for a file that is not there or cannot be a video."""
    from sfvqa.video.readers.local_file import STANDARD_INPUT, check_local_file

    if str(video) != STANDARD_INPUT:
        check_local_file(video)


@contextlib.contextmanager
def open_video(
    video: Path, frames: "FrameOptions", cache: "VideoCache | None", notices: "Notices"
) -> "Iterator[VideoFile]":
    """The video of a command: a file, or a copy of standard input that is gone when the block ends.

    Torch is imported while it is being opened. Raises VideoError for what is wrong with it.
    """
    from sfvqa.video.readers.local_file import local_video

    with (
        local_video(video, timeout_seconds=frames.read_timeout) as path,
        contextlib.closing(VideoFile(path, frames, cache, notices)) as file,
    ):
        if file.is_being_opened:
            import_once("torch", notices)
        file.given = video
        with file:
            yield file


class VideoFile:
    """A video that is opened when it is needed; a context manager that closes what it opened.

    A video of which the cache holds nothing at all is opened at once, so that what is wrong with it is found out before
    minutes go into loading a model: a process begins to when this is built, and is waited for when the block begins.
    `given` is what it was called, and `looking_seconds` what recognising it took. Raises VideoError then, and when it
    is opened later.
    """

    def __init__(self, path: Path, frames: "FrameOptions", cache: "VideoCache | None", notices: "Notices") -> None:
        self.path = self.given = path
        self.frames = frames
        self.cache = cache
        self._opening: VideoBeingOpened | None = None
        self._reader: VideoReader | None = None
        self._ahead: VideoBeingRead | None = None
        self._kept: EntryFacts | None = None
        self._kept_with: SamplingOptions | None = None
        began, self._may_be_kept = time.perf_counter(), False
        # Bytes that cannot be read a reader may do without; if it cannot, it says why.
        with notices.waiting("Looking for the video in the video cache"), contextlib.suppress(UnreadableVideoError):
            self._may_be_kept = cache is not None and cache.may_hold(cache.content_of(path))
        self.looking_seconds = time.perf_counter() - began
        if not self._may_be_kept:
            self._opening = self._begin_to_open()

    def __enter__(self) -> Self:
        if self.is_being_opened:
            _ = self.reader
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open; it is opened again if something of it is wanted."""
        if self._ahead is not None:
            self._ahead.chunks.close()
        for opened in (self._opening, self._reader):
            if opened is not None:
                opened.close()
        self._opening = self._reader = self._ahead = None

    @property
    def is_being_opened(self) -> bool:
        """Whether a process is at it that has not been waited for."""
        return self._opening is not None

    def _begin_to_open(self) -> "VideoBeingOpened":
        from sfvqa.video.readers import VideoBeingOpened

        return VideoBeingOpened(self.path, self.frames.read_options())

    @property
    def reader(self) -> "VideoReader":
        """The open video. Raises VideoError, RangeOutsideVideoError too."""
        if self._reader is None:
            from sfvqa.video.reading import choose_unread
            from sfvqa.video.sampling import SamplingOptions

            opening, self._opening = self._opening or self._begin_to_open(), None
            self._reader = opening.reader()
            try:
                choose_unread(self._reader, self.frames.resolve(SamplingOptions()))  # for its checks
            except BaseException:
                self._reader.close()
                raise
        return self._reader

    def read_ahead(self, sampling: "SamplingOptions", fit: "Fit") -> None:
        """Have these frames read while something else is done, unless they are read so already or may be kept.

        What was read otherwise goes. Until the frames are encoded, the reader is not to be used.
        """
        from sfvqa.checkpoints.memory import CHUNKS_AHEAD_OF_MODEL
        from sfvqa.inference.reading_ahead import read_from_now_on

        if self._may_be_kept or (self._ahead and (self._ahead.sampling, self._ahead.fit) == (sampling, fit)):
            return
        if self._ahead is not None:
            self._ahead.chunks.close()
        self._ahead = read_from_now_on(self.reader, sampling, fit, CHUNKS_AHEAD_OF_MODEL)

    def count_from_now(self) -> None:
        """Leave out of the time that reading takes what of it was done while a model was loaded."""
        if self._ahead is not None:
            self._ahead.watch.since = time.perf_counter()

    @property
    def to_encode(self) -> "VideoBeingRead | VideoReader | Path":
        """What to encode: the path while nothing had to be opened, since the cache may hold it."""
        return self._ahead or self._reader or self.path

    def look_up(self, sampling: "SamplingOptions", key_of: "Callable[[VideoCache], EncodingKey]") -> None:
        """Find out what the cache holds of it, sampled so."""
        if self.cache is not None and self._reader is None:
            self._kept, self._kept_with = self.cache.peek(key_of(self.cache), self.path), sampling
            self._may_be_kept = self._kept is not None

    def is_kept(self, sampling: "SamplingOptions") -> bool:
        """Whether `look_up` found it, sampled so: then it is neither read nor encoded."""
        return self._facts(sampling) is not None

    def indices(self, sampling: "SamplingOptions") -> tuple[int, ...]:
        """The frames that would be read, or were, when what is kept was seen."""
        if kept := self._facts(sampling):
            return kept.indices
        from sfvqa.video.reading import choose_unread

        return choose_unread(self.reader, sampling).indices

    def _facts(self, sampling: "SamplingOptions") -> "EntryFacts | None":
        return self._kept if sampling == self._kept_with else None


def plan_question(
    model: "ModelOptions",
    frames: "FrameOptions",
    video: "VideoFile",
    questions: Sequence[str],
    prompt: "PromptOptions",
    notices: "Notices",
    *,
    max_new_tokens: int,
    batch_size: int = 1,
    static_decode: str = "off",
    is_only_planned: bool = False,
) -> "tuple[Plan, SamplingOptions]":
    """Choose the model, and the frames and quantization by the free memory; nothing is loaded.

    Unless it is only planned, or seen in windows, a thread begins to read the frames: those that the model will most
    likely see as soon as it is known, others if it turns out otherwise. Raises VideoError, ModelError, UsageError for a
    device, dtype, attention or quantization that is not there, PromptTooLongError for more frames than there are
    positions.
    """
    is_read_ahead = not (is_only_planned or frames.windows())
    if is_read_ahead:
        _read_as_expected(model, frames, video)
    sizes = model.choose(notices, device_must_be_here=not is_only_planned)
    from sfvqa.checkpoints.plan import check_positions, make_plan

    settings, sampling = model.settings(sizes.name), frames.resolve(sizes.trained_with.sampling)
    with notices.waiting("Looking at the video"):
        with contextlib.suppress(ModelNotDownloadedError):  # a dry run needs no weights, and has nothing kept for them
            video.look_up(sampling, partial(_key_of, settings, sizes, frames, sampling, video.path))
        available = len(video.indices(sampling))
    plan = make_plan(
        settings,
        sizes,
        num_frames=available,
        fewer_frames=frames.fewer_if_short,
        num_text_tokens=num_question_tokens(questions) + prompt.num_tokens_about,
        max_new_tokens=max_new_tokens,
        batch_size=min(batch_size, len(questions)),
        static_decode=static_decode,
        device_must_be_here=not is_only_planned,
    )
    check_positions(sizes.sizes, sizes.fast, plan.run.num_frames)
    if plan.run.num_frames < available:
        sampling = replace(sampling, num_frames=plan.run.num_frames)
    if is_read_ahead:
        _read_as_planned(plan, sampling, frames, video)
    return plan, sampling


def _read_as_expected(model: "ModelOptions", frames: "FrameOptions", video: "VideoFile") -> None:
    """Begin to read what models.toml says that the model will see, which needs no torch."""
    from sfvqa.checkpoints.known import TrainedWith, expected_fit

    if (spec := model.expected()) is not None:
        trained_with = TrainedWith.of(spec)
        if fit := expected_fit(spec, frames.crop_mode() or trained_with.crop):
            video.read_ahead(frames.resolve(trained_with.sampling), fit)


def _read_as_planned(plan: "Plan", sampling: "SamplingOptions", frames: "FrameOptions", video: "VideoFile") -> None:
    from sfvqa.checkpoints.load import config_for

    config = config_for(plan.settings)
    video.read_ahead(sampling, config.family.fit(config.vision, frames.crop_mode() or plan.sizes.trained_with.crop))


def _key_of(
    settings: "ModelSettings",
    sizes: "ModelSizes",
    frames: "FrameOptions",
    sampling: "SamplingOptions",
    path: Path,
    cache: "VideoCache",
) -> "EncodingKey":
    """What the encoded video is kept under, should the model be loaded as asked for."""
    from sfvqa.checkpoints.find import identify_seeing
    from sfvqa.checkpoints.plan import resolve_place
    from sfvqa.inference.video_cache.entry import EncodingKey

    device, dtype = resolve_place(settings, sizes, device_must_be_here=False)
    return EncodingKey(
        content=cache.content_of(path),
        sampling=sampling,
        crop=frames.crop_mode() or sizes.trained_with.crop,
        reader=frames.read_options().reader,
        checkpoint=identify_seeing(settings),
        dtype=str(dtype).removeprefix("torch."),
        device_kind=device.type,
    )


def encode_video(
    model: "VideoQA",
    video: "VideoFile",
    plan: "Plan",
    sampling: "SamplingOptions",
    frames: "FrameOptions",
    notices: "Notices",
) -> "EncodedVideo":
    """Read and encode a video under a progress bar, then say what was read and what is wrong with it."""
    reading, crop = frames.read_options(), frames.crop_mode()
    video.count_from_now()
    steps = model.encode_progressively(video.to_encode, sampling, reading=reading, crop=crop)
    encoded = notices.follow(steps)
    encoded = replace(encoded, read_seconds=encoded.read_seconds + video.looking_seconds)
    tell_what_was_seen(encoded, plan.settings, sampling, notices)
    return encoded
