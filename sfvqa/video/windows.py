"""Windows, the parts of a video that a question is asked of one by one: which there are, and reading them in one pass.

No frame is decoded twice for windows that overlap or share a group, and of those read only what a window still wants
is held.
"""

import math
from bisect import bisect_left
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from sfvqa.errors import UsageError
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import DEEPEST_REORDERING, NO_PICTURE, VideoReader
from sfvqa.video.reading import choose_unread, find_cuts_in, timeline_of
from sfvqa.video.sampling import SamplingOptions, SamplingStrategy, format_time, frames_in_range, parse_time
from sfvqa.video.subtitles import Subtitles

if TYPE_CHECKING:
    from sfvqa.video.readers.sound import Samples

SCENES = "scenes"
"""What stands for windows that are scenes, in place of a length."""

_SHORTEST_STEP_SECONDS = 0.1
_MILLISECOND = 0.001  # times are printed so, and a range that is typed as printed is to mean the same frames


@dataclass(frozen=True)
class Window:
    """A part of a video, in seconds from its first frame, both ends included as in SamplingOptions."""

    start_seconds: float
    end_seconds: float

    def __str__(self) -> str:
        return f"{format_time(self.start_seconds)}–{format_time(self.end_seconds)}"

    def of(self, sampling: SamplingOptions) -> SamplingOptions:
        """The same sampling of this part alone."""
        return replace(sampling, start_seconds=self.start_seconds, end_seconds=self.end_seconds)

    def to_dict(self) -> dict[str, float]:
        """As JSON shows it."""
        return {"start_seconds": self.start_seconds, "end_seconds": self.end_seconds}


@dataclass(frozen=True)
class WindowOptions:
    """Windows of `length_seconds`, each beginning `overlap_seconds` before the end of the one before; None: scenes.

    Raises UsageError when built from what makes no windows.
    """

    length_seconds: float | None = None
    overlap_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.length_seconds is None:
            if self.overlap_seconds:
                raise UsageError("Scenes do not overlap.", "Give a window's length, or leave the overlap out.")
            return
        step = self.length_seconds - self.overlap_seconds
        if not (self.overlap_seconds >= 0 and _SHORTEST_STEP_SECONDS <= step < math.inf):
            raise UsageError(
                f"Windows of {self.length_seconds:g} s that overlap by {self.overlap_seconds:g} s are not possible.",
                f"Let each begin at least {_SHORTEST_STEP_SECONDS} s after the one before: 30 and 5, for example.",
            )

    @classmethod
    def parse(cls, length: str, overlap: str | None = None) -> Self:
        """Read `30s`, `30`, `1:30` or `scenes`, and an overlap alike.

        >>> WindowOptions.parse("1:30", "5s")
        WindowOptions(length_seconds=90.0, overlap_seconds=5.0)
        """
        overlap_seconds = parse_length(overlap) if overlap else 0.0
        if length.strip() == SCENES:
            return cls(None, overlap_seconds)
        try:
            length_seconds = parse_length(length)
        except UsageError as error:
            raise UsageError(error.message, f"Write a window as 30s, 1:30 or {SCENES}.") from None
        return cls(length_seconds, overlap_seconds)

    def check(self, sampling: SamplingOptions) -> None:
        """UsageError for a sampling that has no meaning within each window."""
        if sampling.strategy is SamplingStrategy.TIMESTAMPS:
            raise UsageError(
                "Frames at given times cannot be taken of every window.", "Leave the times out, or ask without windows."
            )

    def windows_within(self, start_seconds: float, end_seconds: float) -> tuple[Window, ...]:
        """The windows of this length over a range, which they cover, in order.

        A rest shorter than half of what a window adds to the one before is no window: the last one is longer by it.

        >>> [str(window) for window in WindowOptions(30).windows_within(0, 70)]
        ['0:00–0:30', '0:30–1:10']
        """
        assert self.length_seconds is not None
        length, step = self.length_seconds, self.length_seconds - self.overlap_seconds
        count = max(math.ceil((end_seconds - start_seconds - length) / step - 0.5 + 1e-9), 0) + 1
        starts = [round(start_seconds + step * place, 3) for place in range(count)]
        ends = [*(start + self.overlap_seconds for start in starts[1:]), max(end_seconds, starts[-1] + _MILLISECOND)]
        return tuple(Window(start, round(end, 3)) for start, end in zip(starts, ends, strict=True))


def parse_length(text: str) -> float:
    """Seconds of `30s`, `30` or `1:30`; anything else is a UsageError."""
    return parse_time(text.strip().removesuffix("s"))


def plan_windows(video: VideoReader, options: WindowOptions, sampling: SamplingOptions) -> tuple[Window, ...]:
    """The windows of the range that `sampling` has, or of the whole video; each shows at least one frame.

    Scenes need a look over that part of the file. Raises VideoError, UsageError.
    """
    options.check(sampling)
    choose_unread(video, sampling)  # for its checks
    timeline, start = timeline_of(video), sampling.start_seconds or 0.0
    end = min(math.inf if sampling.end_seconds is None else sampling.end_seconds, timeline.end_seconds)
    if options.length_seconds is not None:
        return options.windows_within(start, end)
    times, frames = timeline.timestamps_seconds, frames_in_range(timeline, sampling)
    borders = [times[cut] for cut in find_cuts_in(video, sampling) if frames.start < cut < frames.stop]
    starts = [round(border, 3) for border in (start, *borders)]
    # A scene ends a millisecond before the next, whose first frame is none of its own.
    ends = [
        *(math.floor(border * 1000 - 1) / 1000 for border in borders),
        round(max(end, starts[-1] + _MILLISECOND), 3),
    ]
    return tuple(map(Window, starts, ends))


class WindowsReader(VideoReader):
    """An open video of which one part after the other is read, in one pass over the file; who opened it closes it.

    `parts` are the frames of those that will be asked for, in this order; any may be left out. Frames are held while a
    part may begin before them. What goes back, belongs to no part, or has another fit, is read by itself. Where reading
    fails or is cancelled, the next part begins another pass.
    """

    def __init__(self, video: VideoReader, parts: Sequence[Sequence[int]], fit: Fit) -> None:
        super().__init__(video.info, video.timestamps_seconds, video.key_frames, video.warnings)
        self.name, self.open_seconds, self.asked_for, self.opened_as = (
            video.name,
            video.open_seconds,
            video.asked_for,
            video.opened_as,
        )
        self._video = video
        self._fit = fit
        self._starts = sorted(part[0] for part in parts)
        self._planned = frozenset(index for part in parts for index in part)
        self._pass: Generator[tuple[int, Pixels | str]] | None = None
        self._position = -1  # of the pass: the last frame that it gave
        self._held: dict[int, Pixels | str] = {}
        self._is_cancelled = False
        self._subtitles: Subtitles | None = None

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        """The frames of a part; those that an earlier part has read too are still there."""
        self._video.allow_time()
        if self._is_cancelled:
            self._is_cancelled = False
            self._end_pass()
        is_behind = any(index <= self._position and index not in self._held for index in indices)
        if fit != self._fit or is_behind or not self._planned.issuperset(indices):
            self._end_pass()
            yield from self._video.pictures(indices, fit)
            return
        later = bisect_left(self._starts, indices[0]) + 1  # which may begin at the same frame
        next_start = self._starts[later] if later < len(self._starts) else len(self.timestamps_seconds)
        left = set(indices)
        for index in [index for index in self._held if index in left]:
            left.discard(index)
            yield index, self._held[index]
        self._forget(next_start)
        for index, picture in self._read_on(indices[0]):
            if index >= next_start:
                self._held[index] = picture
            if index in left:
                left.discard(index)
                yield index, picture
            # What is told of lost frames comes after those that the decoder held when it met the damage.
            if not left or (not isinstance(picture, str) and index > max(left) + DEEPEST_REORDERING):
                break
        self._held |= dict.fromkeys(left, NO_PICTURE)
        self._forget(next_start)

    def _forget(self, before: int) -> None:
        self._held = {index: picture for index, picture in self._held.items() if index >= before}

    def _read_on(self, first: int) -> Iterator[tuple[int, Pixels | str]]:
        """What the pass over the file gives next; a new one begins at `first`, if there is none."""
        if self._pass is None:
            self._pass = self._video.pictures(sorted(index for index in self._planned if index >= first), self._fit)
        while True:
            try:
                picture = next(self._pass, None)
            except BaseException:
                self._end_pass()
                raise
            if picture is None:
                return
            self._position = max(self._position, picture[0])
            yield picture

    def _end_pass(self) -> None:
        """The next one begins where it is wanted, so that what is held would come out of order."""
        if self._pass is not None:
            self._pass.close()
        self._pass, self._position = None, -1
        self._held.clear()

    def subtitles(self) -> Subtitles:
        """Those of the video, read once."""
        if self._subtitles is None:
            self._end_pass()
            self._subtitles = self._video.subtitles()
        return self._subtitles

    def sound(self) -> "Generator[tuple[float, Samples] | str]":
        """That of the video."""
        self._end_pass()
        return self._video.sound()

    def cancel(self) -> None:
        """End what another thread is doing with the video."""
        self._is_cancelled = True
        self._video.cancel()

    def close(self) -> None:
        """End the pass; safe to call twice."""
        self._end_pass()
