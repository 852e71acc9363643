"""A Scene becomes an mp4 file that shows it evenly from its first to its last moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np

from sfvqa.training.render import render
from sfvqa.training.scenes import NUM_FRAMES, Scene

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def frame_times(num_frames: int) -> NDArray[np.float64]:
    """When each frame of a video is, counted in sampled frames: the first at 0, the last at NUM_FRAMES - 1.

    Sampled uniformly with both ends at NUM_FRAMES frames, what a scene shows for one of them is seen exactly once.
    """
    return np.linspace(0, NUM_FRAMES - 1, num_frames)


def write_video(
    scene: Scene,
    path: Path,
    *,
    size: int = 160,
    num_frames: int = 96,
    fps: int = 24,
    quality: int = 20,
    preset: str = "veryfast",
) -> None:
    """Write `scene` as H.264, `size` × `size` pixels; `quality` is x264's constant rate factor, lower is better."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": preset}
        stream.codec_context.thread_count = 1
        for pixels in render(scene, size, frame_times(num_frames)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
