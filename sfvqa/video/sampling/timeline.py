"""What is known of a video before any picture is decoded (Timeline), and what was chosen from it (FrameChoice)."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sfvqa.errors import RangeOutsideVideoError
from sfvqa.video.sampling.options import SamplingOptions
from sfvqa.video.sampling.times import format_time


@dataclass(frozen=True)
class Timeline:
    """What a reader knows of a video without decoding pictures.

    `timestamps_seconds` says when each frame is first shown: increasing, the first at 0. `key_frames` are the sorted
    indices of frames where decoding can start, empty if unknown. `fps` is the mean rate that the container gives, 0 if
    unknown. `cuts` are the sorted indices of the first frame of every scene but the first; only SCENE needs them (see
    scenes). `duration_seconds` runs to the end of the last frame, 0 if unknown.
    """

    timestamps_seconds: Sequence[float]
    key_frames: Sequence[int] = ()
    fps: float = 0.0
    cuts: Sequence[int] = ()
    duration_seconds: float = 0.0

    def __post_init__(self) -> None:
        if not self.timestamps_seconds:
            raise ValueError("a timeline has at least one frame")

    @property
    def mean_fps(self) -> float:
        """Frames a second: `fps`, or what the timestamps say; 0 if they say nothing (one frame).

        >>> Timeline([0.0, 0.5, 1.0]).mean_fps
        2.0
        """
        if self.fps > 0:
            return self.fps
        last = self.timestamps_seconds[-1]
        return (len(self.timestamps_seconds) - 1) / last if last > 0 else 0.0

    @property
    def end_seconds(self) -> float:
        """When the last frame stops being shown: `duration_seconds`, or one mean step after it is first shown.

        >>> Timeline([0.0, 0.5, 1.0]).end_seconds
        1.5
        """
        last = self.timestamps_seconds[-1]
        if self.duration_seconds > last:
            return self.duration_seconds
        return last + 1 / self.mean_fps if self.mean_fps else last


@dataclass(frozen=True)
class FrameChoice:
    """The chosen frames (`indices`, sorted, unique) and sentences that the user should know (`notes`)."""

    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()


def frames_in_range(timeline: Timeline, options: SamplingOptions) -> range:
    """The indices of the frames that are first shown from the start to the end of the range, both included.

    Raises RangeOutsideVideoError when there is none.

    >>> frames_in_range(Timeline([0.0, 0.5, 1.0, 1.5]), SamplingOptions(start_seconds=0.4, end_seconds=1.0))
    range(1, 3)
    """
    times = timeline.timestamps_seconds
    start = 0 if options.start_seconds is None else bisect_left(times, options.start_seconds)
    stop = len(times) if options.end_seconds is None else bisect_right(times, options.end_seconds)
    if stop <= start:
        raise _no_frame_in_range(times, options)
    return range(start, stop)


def _no_frame_in_range(times: Sequence[float], options: SamplingOptions) -> RangeOutsideVideoError:
    start, last = options.start_seconds or 0.0, times[-1]
    asked = f"from {format_time(start)}"
    if options.end_seconds is not None:
        asked += f" to {format_time(options.end_seconds)}"
    if start > last:
        return RangeOutsideVideoError(
            f"The range {asked} lies beyond the last frame of the video, at {format_time(last)}.",
            f"Choose a start between 0:00 and {format_time(last)}.",
        )
    return RangeOutsideVideoError(
        f"No frame begins in the range {asked}: it lies between two frames.", "Choose a longer range."
    )
