"""From a timeline and what was asked for to the frames to read: one function a strategy."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import pairwise

import numpy as np

from sfvqa.errors import RangeOutsideVideoError
from sfvqa.video.sampling.options import SamplingOptions, SamplingStrategy, format_time
from sfvqa.video.sampling.timeline import (
    TIME_TOLERANCE_SECONDS,
    Timeline,
    frame_on_screen,
    frames_in_range,
)
from sfvqa.wording import plural


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

    What is on screen at the start counts as shown from there. A frame is taken once, however many ticks it is nearest
    to. For more than `num_frames` frames, only as many ticks are used, spread evenly over all.
    """
    if options.fps is None:
        raise ValueError("the fps strategy comes with a rate")
    frames = frames_in_range(timeline, options)
    start = options.start_seconds or 0.0
    times = [max(seconds, start) for seconds in timeline.timestamps_seconds[frames.start : frames.stop]]
    num_ticks = math.floor((times[-1] - start) * options.fps + 1e-6) + 1
    places = _nearest_to_ticks(times, start, options.fps, num_ticks)
    if len(places) <= options.num_frames:
        return FrameChoice(_at(frames, places))
    ticks = [start + tick / options.fps for tick in spread(num_ticks, options.num_frames)]
    taken = sorted({_nearest(times, seconds) for seconds in ticks})
    asked, taken_at = options.fps, float(f"{options.fps * options.num_frames / num_ticks:.3g}")
    note = (
        f"At {plural(asked, 'frame')} a second there would be {len(places)} frames, more than the {options.num_frames} "
        f"allowed: they are taken at about {plural(taken_at, 'frame')} a second instead."
    )
    return FrameChoice(_at(frames, taken), (note,))


def _nearest_to_ticks(times: Sequence[float], start: float, fps: float, num_ticks: int) -> list[int]:
    """The places of all times that are the nearest to one of the ticks start + k / fps, k < num_ticks.

    Goes through the times instead of the ticks, which at a high rate may be any number.
    """
    borders = [-math.inf, *((earlier + later) / 2 for earlier, later in pairwise(times)), math.inf]
    places = []
    for place, (lower, upper) in enumerate(pairwise(borders)):
        first_tick = max(0, math.ceil((lower - start) * fps)) if place else 0
        if first_tick < num_ticks and first_tick < (upper - start) * fps:
            places.append(place)
    return places


def _nearest(times: Sequence[float], seconds: float) -> int:
    """The place of the time nearest to `seconds`, the later one of two as near."""
    after = bisect_left(times, seconds)
    if after == 0:
        return 0
    if after == len(times):
        return after - 1
    return after if times[after] - seconds <= seconds - times[after - 1] else after - 1


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

    The length of a scene is the number of its frames. A scene's frames are the middles of as many equal parts of it, so
    none stands right at a cut. With more scenes than frames the longest are seen, of equal ones the earlier.
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
    times = timeline.timestamps_seconds
    end = timeline.end_seconds
    beyond = [seconds for seconds in wanted if seconds > end + TIME_TOLERANCE_SECONDS]
    if beyond:
        many = f" ({len(beyond) - 1} more {'does' if len(beyond) == 2 else 'do'}, too)" if len(beyond) > 1 else ""
        raise RangeOutsideVideoError(
            f"The time {format_time(beyond[0])} lies beyond the end of the video, at {format_time(end)}{many}.",
            f"Choose times between 0:00 and {format_time(end)}.",
        )
    indices = sorted({frame_on_screen(times, seconds) for seconds in wanted})
    if len(indices) == len(wanted):
        return FrameChoice(tuple(indices))
    taken = f"{plural(len(indices), 'frame')} {'is' if len(indices) == 1 else 'are'} taken"
    note = f"Of the {len(wanted)} times some show the same frame, which is seen once: {taken}."
    return FrameChoice(tuple(indices), (note,))


# --- The published reference's own samplers, so that its answers and scores can be reproduced ---
# SHI-Labs/Slow-Fast-Video-Multimodal-LLM: simple_inference_demo.py, train.py, lmms_eval's read_video_pyav2. It knows no
# ranges: here each runs over the frames of the range as if they were the whole file.


def _reference_demo(timeline: Timeline, options: SamplingOptions) -> FrameChoice:
    """Evenly from the first to the last frame of the range, rounded down.

    The reference repeats frames where there are fewer than asked for; here each comes once. (It also computes
    round(fps) and stops where that is 0, below 0.5 fps, but has no use for it: here such videos work.)
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
    """The middles of `wanted` equal parts of the numbers below `available`: as even as `spread`, away from the ends.

    wanted ≤ available, so that no two are the same.

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
    if rest == 0:
        return [1] * len(sizes)
    quotas = [divmod(rest * size, sum(left)) for size in left]
    shares = [1 + whole for whole, _ in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda part: -quotas[part][1])
    for part in by_remainder[: total - sum(shares)]:
        shares[part] += 1
    return shares


def _at(frames: range, places: Sequence[int]) -> tuple[int, ...]:
    return tuple(frames[place] for place in places)


_CHOOSERS: dict[SamplingStrategy, Callable[[Timeline, SamplingOptions], FrameChoice]] = {
    SamplingStrategy.UNIFORM: _uniform,
    SamplingStrategy.FPS: _fps,
    SamplingStrategy.KEYFRAMES: _keyframes,
    SamplingStrategy.SCENE: _scene,
    SamplingStrategy.TIMESTAMPS: _timestamps,
    SamplingStrategy.REFERENCE_DEMO: _reference_demo,
    SamplingStrategy.REFERENCE_TRAINING: partial(_reference_rate, 4),
    SamplingStrategy.REFERENCE_EVALUATION: partial(_reference_rate, 2),
}
