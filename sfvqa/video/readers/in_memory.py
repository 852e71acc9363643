"""Frames that are in memory already, of a camera or another program, as a video: arrays, tensors or Pillow's images."""

from collections.abc import Generator, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfvqa.errors import UsageError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import VideoReader
from sfvqa.video.sampling import check_time
from sfvqa.wording import plural

Frames = Any
"""RGB bytes `[T, H, W, 3]` or `[T, 3, H, W]` as an array or a tensor, or a sequence of pictures: Pillow's images, or
bytes `[H, W, 3]` or `[3, H, W]`, of any sizes."""
_GIVE_BYTES = "Give bytes: of values from 0 to 1, `(255 * frames).round()` as uint8."
_GIVE_RGB = "Give RGB frames as [T, H, W, 3] or [T, 3, H, W], or a list of pictures."


class FramesInMemory(VideoReader):
    """A reader of frames that are shown at `timestamps_seconds`, which increase and may begin at any time.

    What it gives is what the same pictures in a folder give. The last frame lasts a mean step, an only one 0 s. No
    frame is copied before it is read. Raises UsageError for what is no such frames or times, UnreadableVideoError for a
    picture of Pillow's that cannot be read.
    """

    name = "memory"

    def __init__(self, frames: Frames, timestamps_seconds: Iterable[float]) -> None:
        is_list = isinstance(frames, Sequence) and not isinstance(frames, str)
        self._frames = frames if is_list else _in_one(frames)
        times = _checked_times(timestamps_seconds, len(self._frames))
        height, width = self._pixels(0).shape[:2]
        step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        length, fps = times[-1] - times[0] + step, 1 / step if step else 0.0
        info = VideoInfo(Path("frames in memory"), len(times), fps, length, width, height, "memory", 0)
        super().__init__(info, times, tuple(range(len(times))), ())

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index in indices:
            yield index, fit(self._pixels(index))

    def _pixels(self, index: int) -> Pixels:
        frame = self._frames[index]
        if isinstance(frame, Image.Image):
            from sfvqa.video.readers.images import as_shown, clear_errors  # slow: it imports PyAV

            with clear_errors(Path(f"frame {index}")):
                return as_shown(frame)[0]
        return np.ascontiguousarray(_channels_last(_as_array(frame, 3)))


def _in_one(frames: Frames) -> Pixels:
    """Frames in one array, `[T, H, W, 3]`."""
    return _channels_last(_as_array(frames, 4))


def _as_array(frames: Frames, num_axes: int) -> Pixels:
    """Bytes as an array, also those of a tensor, on whatever device: torch is not imported to tell it from an array."""
    shape, dtype = getattr(frames, "shape", None), str(getattr(frames, "dtype", "")).removeprefix("torch.")
    if shape is None or not dtype:
        raise UsageError(f"Frames are of type {type(frames).__name__}.", _GIVE_RGB)
    if dtype != "uint8":
        raise UsageError(f"Frames are of {dtype}, not uint8.", _GIVE_BYTES)
    if len(shape) != num_axes or 0 in shape[-3:]:
        what = "Frames" if num_axes == 4 else "A frame"
        raise UsageError(f"{what} of shape {list(shape)} {'are' if num_axes == 4 else 'is'} no picture.", _GIVE_RGB)
    return np.asarray(frames.cpu() if hasattr(frames, "cpu") else frames)


def _channels_last(pixels: Pixels) -> Pixels:
    """`[…, H, W, 3]`, also of `[…, 3, H, W]`. UsageError where neither axis, or each of them, may be the colours."""
    match [axis for axis in (-1, -3) if pixels.shape[axis] == 3]:
        case [-1]:
            return pixels
        case [-3]:
            return np.moveaxis(pixels, -3, -1)
        case []:
            raise UsageError(f"Frames of shape {list(pixels.shape)} have no axis of 3 colours.", _GIVE_RGB)
        case _:
            raise UsageError(
                f"Frames of shape {list(pixels.shape)} have two axes of 3, and either may be the colours.",
                "Give pictures of more than 3 pixels.",
            )


def _checked_times(timestamps_seconds: Iterable[float], num_frames: int) -> tuple[float, ...]:
    if not num_frames:
        raise UsageError("There are no frames.", "Give at least one.")
    try:
        times = tuple(float(seconds) for seconds in timestamps_seconds)
    except (TypeError, ValueError) as error:
        raise UsageError(f"The times of the frames are no numbers: {error}.", "Give seconds, one a frame.") from error
    if len(times) != num_frames:
        raise UsageError(
            f"There {'is' if num_frames == 1 else 'are'} {plural(num_frames, 'frame')} and {plural(len(times), 'time')}"
            ".",
            "Give one time a frame.",
        )
    for index, seconds in enumerate(times):
        check_time(f"The time of frame {index}", seconds)
    for index, (earlier, later) in enumerate(pairwise(times), 1):
        if later <= earlier:
            raise UsageError(
                f"Frame {index} is shown at {later:g} s, not after the one before it, at {earlier:g} s.",
                "Give frames in the order they are shown in, each with a later time.",
            )
    return times
