"""Frames go through a real encoder and back, in memory, as they would through a file. Knows nothing of scenes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from sfvqa.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_LOSSY = 51


def check_quality(quality: int) -> None:
    """Raise UsageError for what is no constant rate factor of x264."""
    if not 0 <= quality <= _MOST_LOSSY:
        raise UsageError(f"x264 has no constant rate factor {quality}.", f"It goes from 0 to {_MOST_LOSSY}.")


def write_h264(
    frames: NDArray[np.uint8],
    file: str | BinaryIO,
    *,
    fps: int = 12,
    quality: int = 23,
    preset: str = "superfast",
) -> None:
    """Write frames [T, H, W, 3] as mp4 (H.264, 4:2:0); `quality` is x264's constant rate factor, lower is better."""
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": preset}
        stream.codec_context.thread_count = 1
        stream.height, stream.width = frames.shape[1:3]
        reformatter = VideoReformatter()  # frames make one each otherwise, and that costs more than the rest
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(reformatter.reformat(frame, format="yuv420p")))
        container.mux(stream.encode())


def compress(frames: NDArray[np.uint8], *, quality: int = 23) -> NDArray[np.uint8]:
    """Frames [T, H, W, 3] as they come out of an mp4 of that `quality`; H and W are even."""
    file = BytesIO()
    write_h264(frames, file, quality=quality)
    file.seek(0)
    reformatter = VideoReformatter()
    with av.open(file, "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        read: NDArray[np.uint8] = np.stack(
            [reformatter.reformat(frame, format="rgb24").to_ndarray() for frame in container.decode(video=0)]
        ).astype(np.uint8)
    if read.shape != frames.shape:
        raise ValueError(f"{len(frames)} frames went in and {len(read)} came out")
    return read
