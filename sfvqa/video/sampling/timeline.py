"""What is known of a video before any picture is decoded, and which of its frames a range of time shows."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from sfvqa.errors import RangeOutsideVideoError
from sfvqa.video.sampling.options import SamplingOptions, format_time

TIME_TOLERANCE_SECONDS = 0.0005 + 1e-9
"""Times are printed to the millisecond: the frame at 7.0333… s is meant by 0:07.033."""


@dataclass(frozen=True)
class Timeline:
    """When each frame is first shown: `timestamps_seconds` increase, the first is 0. What is unknown is 0 or empty.

    `key_frames` are the sorted indices of frames where decoding can start; `fps` is the mean rate that the container
    gives; `cuts` are the sorted indices of the first frame of every scene but the first, which only SCENE needs;
    `duration_seconds` runs to the end of the last frame.
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


def frames_in_range(timeline: Timeline, options: SamplingOptions) -> range:
    """The indices of the frames on screen from the start to the end of the range, both included.

    The first may have come on screen before: a still picture is shown for as long as no other one comes. Half a
    millisecond is forgiven. Raises RangeOutsideVideoError when the range begins after the end of the video.

    >>> frames_in_range(Timeline([0.0, 0.5, 1.0, 1.5]), SamplingOptions(start_seconds=0.6, end_seconds=1.0))
    range(1, 3)
    """
    times = timeline.timestamps_seconds
    start, end = options.start_seconds or 0.0, options.end_seconds
    if start > timeline.end_seconds + TIME_TOLERANCE_SECONDS:
        asked = f"from {format_time(start)}" + ("" if end is None else f" to {format_time(end)}")
        raise RangeOutsideVideoError(
            f"The range {asked} lies beyond the last frame of the video, at {format_time(times[-1])}.",
            f"Choose a start between 0:00 and {format_time(times[-1])}.",
        )
    return range(frame_on_screen(times, start), len(times) if end is None else frame_on_screen(times, end) + 1)


def frame_on_screen(times: Sequence[float], seconds: float) -> int:
    """The index of the last frame that is first shown at that time or before.

    Also of one that is shown up to half a millisecond later, if it is nearer than the one before.

    >>> frame_on_screen([0.0, 1.0, 40.0], 10.0), frame_on_screen([7.0, 7.03333], 7.033)
    (1, 1)
    """
    following = bisect_right(times, seconds)
    if following in (0, len(times)):
        return max(following - 1, 0)
    late, early = times[following] - seconds, seconds - times[following - 1]
    return following if late <= TIME_TOLERANCE_SECONDS and late < early else following - 1
