"""Writes videos from frames as they are stored, in any pixel format and described in any way: one colour, or given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

LOSSLESS_H264 = {"qp": "0"}
LOSSLESS_HEVC = {"x265-params": "lossless=1:bframes=0:log-level=none"}  # its times for two B-frames are wrong
RGB, BT709, UNSPECIFIED, BT601_625, BT601_525, SMPTE240M, YCGCO, BT2020 = 0, 1, 2, 5, 6, 7, 8, 9  # ITU-T H.273
LIMITED, FULL = 1, 2


@dataclass(frozen=True)
class Stored:
    """How frames are stored and described; `values` for write_flat alone."""

    codec: str
    pix_fmt: str
    values: Sequence[int] = ()  # one a plane; all bytes of a packed format are the same
    size: tuple[int, int] = (144, 96)
    matrix: int = UNSPECIFIED
    color_range: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    pixel_aspect: Fraction | None = None
    transfer: int = 2
    primaries: int = 2
    rotation: int = 0


def write_flat(path: Path, stored: Stored) -> Path:
    frame = av.VideoFrame(*stored.size, stored.pix_fmt)
    for plane, value in zip(samples(frame), stored.values, strict=True):
        plane[:] = value
    return write_frames(path, stored, [frame, frame])


def samples(frame: av.VideoFrame) -> list[NDArray[np.generic]]:
    """The numbers [rows, columns with padding] in each plane of a frame, to be written to."""
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return [np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1) for plane in frame.planes]


def write_frames(path: Path, stored: Stored, frames: Sequence[av.VideoFrame]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(stored.codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = frames[0].width, frames[0].height
        stream.pix_fmt, stream.options = stored.pix_fmt, dict(stored.options)
        context = stream.codec_context
        context.colorspace, context.color_range = stored.matrix, stored.color_range
        context.color_trc, context.color_primaries = stored.transfer, stored.primaries
        if stored.rotation:
            stream.set_display_rotation(stored.rotation)
        if stored.pixel_aspect:
            context.sample_aspect_ratio = stored.pixel_aspect
        for place, frame in enumerate(frames):
            frame.colorspace, frame.color_range = stored.matrix, stored.color_range
            frame.color_trc, frame.color_primaries = stored.transfer, stored.primaries
            frame.pts, frame.time_base = place, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
