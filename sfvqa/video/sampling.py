"""Which frames of a video to look at: arithmetic over what is known without decoding; no file is opened here."""

import math
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Self

import numpy as np

from sfvqa.errors import RangeOutsideVideoError, UsageError
from sfvqa.wording import plural

_TIME = re.compile(r"(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+(?:\.\d*)?|\.\d+)", re.ASCII)
_HOW_TO_GIVE_TIMES = "Give times as seconds from the first frame, for example 90 or 1:30."
_HIGHEST_FPS = 1_000_000  # far above any camera; beyond it the arithmetic would lose the ticks in rounding
_LATEST_SECONDS = 1e10  # 300 years: beyond any video, and far below what a clock of milliseconds can show
TIME_TOLERANCE_SECONDS = 0.0005 + 1e-9  # times are printed to the millisecond: 0:07.033 means the frame at 7.0333… s


# --- What is asked for ---


class SamplingStrategy(StrEnum):
    """How frames are spread over the file or range; the last four are those of published models."""

    UNIFORM = "uniform"
    FPS = "fps"
    KEYFRAMES = "keyframes"
    SCENE = "scene"
    TIMESTAMPS = "timestamps"
    REFERENCE_DEMO = "reference-demo"
    REFERENCE_TRAINING = "reference-training"
    REFERENCE_EVALUATION = "reference-evaluation"
    SMOLVLM = "smolvlm"

    @classmethod
    def implied(cls, name: str | None, fps: float | None, times: object | None, default: Self) -> Self:
        """The one that is named, else the one that a rate or times go with, else the default."""
        if name is not None:
            return cls(name)
        return cls.FPS if fps is not None else cls.TIMESTAMPS if times is not None else default

    @property
    def needs_number_alone(self) -> bool:
        """Whether it needs the number of frames alone: no rate, no times."""
        return self not in (SamplingStrategy.FPS, SamplingStrategy.TIMESTAMPS)


@dataclass(frozen=True)
class SamplingOptions:
    """How many frames, spread how, from where. Raises UsageError when built from options that contradict each other.

    At most `num_frames` are taken (TIMESTAMPS takes one for every time). `fps` is the rate of FPS;
    `timestamps_seconds` are the times of TIMESTAMPS, in any order. All times are seconds from the first frame,
    whatever time the container gives it; the range includes `start_seconds` and `end_seconds`.
    """

    num_frames: int = 64
    strategy: SamplingStrategy = SamplingStrategy.UNIFORM
    fps: float | None = None
    timestamps_seconds: tuple[float, ...] | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.num_frames, int) or self.num_frames < 1:
            raise UsageError(f"{self.num_frames} frames were asked for.", "Ask for a whole number, at least one.")
        start = self.start_seconds or 0.0
        check_time("The start of the range", start)
        if self.end_seconds is not None:
            check_time("The end of the range", self.end_seconds)
            if self.end_seconds <= start:
                raise UsageError(
                    f"The range ends at {format_time(self.end_seconds)}, not after its start at {format_time(start)}.",
                    "Give a start that lies before the end.",
                )
        self._check_pairing(SamplingStrategy.FPS, self.fps, "a rate", "Give frames a second, for example 2.")
        self._check_pairing(SamplingStrategy.TIMESTAMPS, self.timestamps_seconds, "times", _HOW_TO_GIVE_TIMES)
        if self.fps is not None and not 0 < self.fps <= _HIGHEST_FPS:
            raise UsageError(
                f"The rate is {plural(self.fps, 'frame')} a second.", f"Give one above 0 and up to {_HIGHEST_FPS:,}."
            )
        end = math.inf if self.end_seconds is None else self.end_seconds
        for seconds in self.timestamps_seconds or ():
            check_time("One of the times", seconds)
            if not start <= seconds <= end:
                until = "" if self.end_seconds is None else f" to {format_time(end)}"
                raise UsageError(
                    f"The time {format_time(seconds)} lies outside the range from {format_time(start)}{until}.",
                    "Leave the time out, or give a range that includes it.",
                )

    def _check_pairing(
        self, strategy: SamplingStrategy, value: float | Sequence[float] | None, what: str, example: str
    ) -> None:
        """A strategy and the value that it alone needs go together."""
        if self.strategy is strategy and (value is None or (isinstance(value, Sequence) and not value)):
            raise UsageError(f"Choosing frames by “{strategy}” requires {what}.", example)
        if self.strategy is not strategy and value is not None:
            raise UsageError(
                f"Frames are chosen by “{self.strategy}”, which does not use {what}.",
                f"Choose by “{strategy}”, or leave {what} out.",
            )


def check_time(what: str, seconds: float) -> None:
    """UsageError, naming `what` it is, for a time before the first frame or after any video, or NaN."""
    if not 0 <= seconds < _LATEST_SECONDS:  # nor NaN
        raise UsageError(f"{what} is {seconds} seconds.", _HOW_TO_GIVE_TIMES)


def parse_time(text: str) -> float:
    """Read a time such as `90`, `1:30` or `0:01:30.5` as seconds; anything else is a UsageError.

    >>> parse_time("0:01:30.5")
    90.5
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"“{text}” is not a time.", "Write times as 90, 1:30 or 0:01:30.5.")
    hours, minutes, seconds = match["hours"], match["minutes"], float(match["seconds"])
    if minutes is not None and (seconds >= 60 or (hours is not None and int(minutes) >= 60)):
        raise UsageError(
            f"“{text}” is not a time: a number after a colon must be below 60.", "Write 1:30 or 0:01:30.5."
        )
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + seconds


def format_time(seconds: float) -> str:
    """Print seconds as `m:ss` or `h:mm:ss`, with up to three decimals; parse_time reads it back.

    >>> format_time(90.5)
    '1:30.5'
    """
    whole, fraction = divmod(round(seconds * 1000), 1000)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
    return clock + f".{fraction:03d}".rstrip("0") if fraction else clock


# --- What is known of a video ---


@dataclass(frozen=True)
class Timeline:
    """When each frame is first shown: `timestamps_seconds` increase from 0. What is unknown is 0 or empty.

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
        last = self.timestamps_seconds[-1]
        return self.fps or ((len(self.timestamps_seconds) - 1) / last if last > 0 else 0.0)

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

    The first may have come on screen before. Half a millisecond is forgiven. Raises RangeOutsideVideoError when the
    range begins after the end of the video.

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
    return range(_frame_on_screen(times, start), len(times) if end is None else _frame_on_screen(times, end) + 1)


def _frame_on_screen(times: Sequence[float], seconds: float) -> int:
    """The index of the last frame that is first shown at that time or before.

    Also of one that is shown up to half a millisecond later, if it is nearer than the one before.

    >>> _frame_on_screen([0.0, 1.0, 40.0], 10.0), _frame_on_screen([7.0, 7.03333], 7.033)
    (1, 1)
    """
    following = bisect_right(times, seconds)
    if following in (0, len(times)):
        return max(following - 1, 0)
    late, early = times[following] - seconds, seconds - times[following - 1]
    return following if late <= TIME_TOLERANCE_SECONDS and late < early else following - 1


# --- The choice, by one function a strategy ---


@dataclass(frozen=True)
class FrameChoice:
    """The chosen frames (`indices`, sorted, unique) and sentences that the user should know (`notes`)."""

    indices: tuple[int, ...]
    notes: tuple[str, ...] = ()


def choose_frames(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Choose the frames to read: sorted, unique, and in the range.

    Where the range holds no more frames than a strategy wants, each is chosen once. Raises RangeOutsideVideoError when
    the range begins, or a wanted time lies, beyond the end of the video.

    >>> choose_frames(Timeline([0.0, 0.5, 1.0, 1.5, 2.0]), SamplingOptions(num_frames=3)).indices
    (0, 2, 4)
    """
    return _CHOOSERS[options.strategy](timeline, options)


def _uniform(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Evenly by place in the file, not by the clock, the first and the last frame always among them.

    At constant rate that is the same, and at variable rate a still stretch is not asked for more frames than it has.
    """
    frames = frames_in_range(timeline, options)
    return FrameChoice(_at(frames, spread(len(frames), options.num_frames)))


def _fps(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """The frames nearest in time to the ticks start, start + 1/fps, … up to the last frame in the range.

    What is on screen at the start counts as shown from there. For more than `num_frames` frames, only as many ticks are
    used, spread evenly over all.
    """
    assert options.fps is not None  # as SamplingOptions checks
    frames = frames_in_range(timeline, options)
    start = options.start_seconds or 0.0
    times = [max(seconds, start) for seconds in timeline.timestamps_seconds[frames.start : frames.stop]]
    num_ticks = math.floor((times[-1] - start) * options.fps + 1e-6) + 1
    # Half-way between frames the nearest one changes; the later of two as near counts.
    borders = [(earlier + later) / 2 for earlier, later in pairwise(times)]
    places = _nearest_to_ticks(borders, start, options.fps, num_ticks)
    if len(places) <= options.num_frames:
        return FrameChoice(_at(frames, places))
    ticks = [start + tick / options.fps for tick in spread(num_ticks, options.num_frames)]
    taken = sorted({bisect_right(borders, seconds) for seconds in ticks})
    taken_at = float(f"{options.fps * options.num_frames / num_ticks:.3g}")
    note = (
        f"At {plural(options.fps, 'frame')} a second there would be {len(places)} frames, more than the "
        f"{options.num_frames} allowed: they are taken at about {plural(taken_at, 'frame')} a second instead."
    )
    return FrameChoice(_at(frames, taken), (note,))


def _nearest_to_ticks(borders: Sequence[float], start: float, fps: float, num_ticks: int) -> list[int]:
    """The places between the borders in which one of the ticks start + k / fps, k < num_ticks, lies.

    Goes through the places instead of the ticks, which at a high rate may be any number.
    """
    places = []
    for place, (lower, upper) in enumerate(pairwise([-math.inf, *borders, math.inf])):
        first_tick = max(0, math.ceil((lower - start) * fps)) if place else 0
        if first_tick < num_ticks and first_tick < (upper - start) * fps:
            places.append(place)
    return places


def _keyframes(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """The key frames in the range, thinned out evenly to `num_frames`; in a range without one, as UNIFORM."""
    frames = frames_in_range(timeline, options)
    keys = [index for index in timeline.key_frames if index in frames]
    if not keys:
        why = "No key frame lies in the range" if timeline.key_frames else "The key frames of this video are not known"
        return FrameChoice(
            _uniform(timeline, options).indices, (f"{why}: its frames are taken evenly spread instead.",)
        )
    places = spread(len(keys), options.num_frames)
    notes = []
    if len(places) < len(keys):
        are = "is" if len(places) == 1 else "are"
        notes.append(f"There are {len(keys)} key frames: {len(places)} of them {are} taken, evenly spread.")
    return FrameChoice(tuple(keys[place] for place in places), tuple(notes))


def _scene(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Share the frames out over the scenes in the range, one each at least, the rest in proportion to their length.

    A scene's frames are the middles of as many equal parts of it, so none stands right at a cut. With more scenes than
    frames the longest are seen, of equal ones the earlier.
    """
    frames = frames_in_range(timeline, options)
    borders = [frames.start, *(cut for cut in timeline.cuts if cut in frames and cut > frames.start), frames.stop]
    scenes = [range(start, stop) for start, stop in pairwise(borders)]
    num_frames = min(options.num_frames, len(frames))
    notes = []
    if len(scenes) == 1:
        notes.append("No cut was found: the frames are spread evenly over one scene.")
    if num_left_out := max(len(scenes) - num_frames, 0):
        longest = sorted(range(len(scenes)), key=lambda place: -len(scenes[place]))[:num_frames]
        are, are_left = ("is" if number == 1 else "are" for number in (num_frames, num_left_out))
        notes.append(
            f"There are {len(scenes)} scenes, more than the {plural(num_frames, 'frame')} asked for: the longest {are} "
            f"seen, {num_left_out} {are_left} left out."
        )
        scenes = [scenes[place] for place in sorted(longest)]
    indices: list[int] = []
    for scene, share in zip(scenes, share_out([len(scene) for scene in scenes], num_frames), strict=True):
        indices += _at(scene, spread_within(len(scene), share))
    return FrameChoice(tuple(indices), tuple(notes))


def _timestamps(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """For each wanted time the frame on screen then. The very end of the video still shows its last frame."""
    wanted = sorted(options.timestamps_seconds or ())
    end = timeline.end_seconds
    beyond = [seconds for seconds in wanted if seconds > end + TIME_TOLERANCE_SECONDS]
    if beyond:
        times = f"time {format_time(beyond[0])} lies"
        if len(beyond) > 1:
            times = f"times {format_time(beyond[0])} and {len(beyond) - 1} more lie"
        raise RangeOutsideVideoError(
            f"The {times} beyond the end of the video, at {format_time(end)}.",
            f"Choose times between 0:00 and {format_time(end)}.",
        )
    indices = sorted({_frame_on_screen(timeline.timestamps_seconds, seconds) for seconds in wanted})
    if len(indices) == len(wanted):
        return FrameChoice(tuple(indices))
    taken = f"{plural(len(indices), 'frame')} {'is' if len(indices) == 1 else 'are'} taken"
    note = f"Of the {len(wanted)} times some show the same frame, which is seen once: {taken}."
    return FrameChoice(tuple(indices), (note,))


# The published reference's own samplers, so that its answers and scores can be reproduced (SHI-Labs/Slow-Fast-Video-
# Multimodal-LLM: simple_inference_demo.py, train.py, lmms_eval's read_video_pyav2). It knows no ranges: here each runs
# over the frames of the range as if they were the whole file.


def _reference_demo(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Evenly from the first to the last frame of the range, rounded down.

    The reference repeats frames where there are fewer than asked for, and stops below 0.5 fps; here neither happens.
    """
    frames = frames_in_range(timeline, options)
    # NumPy's own floats: i * (n - 1) / (N - 1) in whole numbers differs from them here and there.
    places: list[int] = np.linspace(0, len(frames) - 1, min(options.num_frames, len(frames)), dtype=int).tolist()
    notes = []
    if len(frames) < options.num_frames:
        notes.append(
            f"There {'is' if len(frames) == 1 else 'are'} only {plural(len(frames), 'frame')}: the reference would "
            f"repeat what there is to make {options.num_frames}; here each is seen once."
        )
    return FrameChoice(_at(frames, places), tuple(notes))


def _reference_rate(target_fps: int, timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Every round(fps / target_fps)-th frame, thinned out evenly to `num_frames` if there are more.

    Every single frame where that rounds to 0 or the rate is unknown. Halves round to the even number.
    """
    frames = frames_in_range(timeline, options)
    # 25 fps computed from timestamps may be 25.000000000000004, and that would turn 12.5 from 12 into 13.
    step = round(Fraction(timeline.mean_fps).limit_denominator(1_000_000) / target_fps)
    stepped = frames[:: max(step, 1)]
    if len(stepped) < options.num_frames:
        return FrameChoice(tuple(stepped))
    # In floats like the reference: the ends of `num_frames` equal parts, so the first frame is usually not among them.
    part = len(stepped) / options.num_frames
    return FrameChoice(tuple(stepped[round((number + 1) * part - 1)] for number in range(options.num_frames)))


def _smolvlm(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """A frame a second, evenly from the first to the last; of more seconds than `num_frames`, without both ends.

    Source: SmolVLMVideoProcessor of transformers, which leaves out a second at the beginning and one at the end.
    """
    frames = frames_in_range(timeline, options)
    rate = timeline.mean_fps or 1.0
    seconds, first, last = len(frames) / rate, 0, len(frames) - 1
    if seconds - 2 > options.num_frames:
        first, last = int(rate), min(int(len(frames) - rate), last)
    wanted = max(1, min(round(seconds), options.num_frames))
    places: list[int] = np.unique(np.linspace(first, last, wanted, dtype=int)).tolist()
    return FrameChoice(_at(frames, places))


_CHOOSERS: dict[SamplingStrategy, Callable[[Timeline, SamplingOptions], FrameChoice]] = {
    SamplingStrategy.UNIFORM: _uniform,
    SamplingStrategy.FPS: _fps,
    SamplingStrategy.KEYFRAMES: _keyframes,
    SamplingStrategy.SCENE: _scene,
    SamplingStrategy.TIMESTAMPS: _timestamps,
    SamplingStrategy.REFERENCE_DEMO: _reference_demo,
    SamplingStrategy.REFERENCE_TRAINING: partial(_reference_rate, 4),
    SamplingStrategy.REFERENCE_EVALUATION: partial(_reference_rate, 2),
    SamplingStrategy.SMOLVLM: _smolvlm,
}


# --- Arithmetic ---


def spread(available: int, wanted: int) -> list[int]:
    """`wanted` numbers from 0 to `available` - 1, both included, as even as whole numbers allow (halves round up).

    All of them if there are no more than wanted; one alone is in the middle.

    >>> spread(10, 4)
    [0, 3, 6, 9]
    """
    if wanted >= available:
        return list(range(available))
    if wanted == 1:
        return [(available - 1) // 2]
    steps = wanted - 1
    return [(2 * place * (available - 1) + steps) // (2 * steps) for place in range(wanted)]


def spread_within(available: int, wanted: int) -> list[int]:
    """The middles of `wanted` ≤ `available` equal parts of the numbers below `available`: even, away from the ends.

    >>> spread_within(10, 1), spread_within(10, 2), spread_within(3, 3)
    ([5], [2, 7], [0, 1, 2])
    """
    return [(2 * part + 1) * available // (2 * wanted) for part in range(wanted)]


def share_out(sizes: Sequence[int], total: int) -> list[int]:
    """Share `total` out over parts of these sizes: one each, the rest in proportion to what is left of each part.

    The largest remainders get what whole numbers leave over, earlier parts first. No part gets more than its size;
    len(sizes) ≤ total ≤ sum(sizes).

    >>> share_out([100, 50, 1], 10)
    [6, 3, 1]
    """
    left = [size - 1 for size in sizes]
    rest = total - len(sizes)
    quotas = [divmod(rest * size, sum(left) or 1) for size in left]
    shares = [1 + whole for whole, _ in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda part: -quotas[part][1])
    for part in by_remainder[: total - sum(shares)]:
        shares[part] += 1
    return shares


def _at(frames: range, places: Sequence[int]) -> tuple[int, ...]:
    return tuple(frames[place] for place in places)
