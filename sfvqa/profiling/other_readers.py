"""Ways to get frames by their place in the file, ours and others', behind one signature, to be compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Read = Callable[[Path, list[int]], list[NDArray[np.uint8]]]

SHORTER_EDGE = 576
OTHER_READERS = {"opencv-seek": "cv2", "opencv-grab": "cv2", "torchcodec": "torchcodec", "decord": "decord"}
"""Each with the module that it needs."""

READER_NAMES = {
    "ours": "sfvqa, 1 handle",
    "ours-2": "sfvqa, 2 handles",
    "opencv-seek": "OpenCV seek",
    "opencv-grab": "OpenCV grab",
    "torchcodec": "torchcodec exact",
    "decord": "decord",
}


def read_with(reader: str) -> Read:
    """Import what `reader` needs and return its way to read: (path, indices) → frames [H, W, 3] of 576 pixels."""
    return {
        "ours": lambda: _ours(1),
        "ours-2": lambda: _ours(2),
        "opencv-seek": _opencv_seek,
        "opencv-grab": _opencv_grab,
        "torchcodec": _torchcodec,
        "decord": _decord,
    }[reader]()


def _ours(num_threads: int) -> Read:
    from sfvqa.video import FitSquare, ReadOptions
    from sfvqa.video import enlarging as _imported_too  # noqa: F401
    from sfvqa.video.readers import open_here
    from sfvqa.video.readers import pyav as _imported  # noqa: F401

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        with open_here(path, ReadOptions(num_threads=num_threads)) as reader:
            return [frame.pixels for frame in reader.read(indices, FitSquare(SHORTER_EDGE))]

    return read


def _small(pixels: Any) -> Any:
    """Resize to SHORTER_EDGE as a program that uses OpenCV would."""
    import cv2

    height, width = pixels.shape[:2]
    scale = SHORTER_EDGE / min(height, width)
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=interpolation)


def _opencv_seek() -> Read:
    import cv2

    cv2.setNumThreads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        frames = []
        for index in indices:
            capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            is_read, pixels = capture.read()
            if is_read:
                frames.append(_small(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
        return frames

    return read


def _opencv_grab() -> Read:
    import cv2

    cv2.setNumThreads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        wanted, frames = set(indices), []
        for index in range(indices[-1] + 1):
            if capture.grab() and index in wanted:
                frames.append(_small(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)))
        return frames

    return read


def _torchcodec() -> Read:
    import torch
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined,unused-ignore]

    torch.set_num_threads(1)

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        decoder = VideoDecoder(str(path), seek_mode="exact", num_ffmpeg_threads=1)
        frames = []
        for index in indices:  # one at a time: a batch of full frames would not fit every memory
            pixels = decoder.get_frames_at([index]).data
            scale = SHORTER_EDGE / min(pixels.shape[-2:])
            size = [round(side * scale) for side in pixels.shape[-2:]]
            small = interpolate(
                pixels.contiguous(memory_format=torch.channels_last), size, mode="bilinear", antialias=True
            )
            frames.append(small[0].permute(1, 2, 0).numpy())
        return frames

    return read


def _decord() -> Read:
    import decord

    def read(path: Path, indices: list[int]) -> list[NDArray[np.uint8]]:
        height, width = decord.VideoReader(str(path), num_threads=1)[0].shape[:2]
        scale = SHORTER_EDGE / min(height, width)
        size = {"width": round(width * scale), "height": round(height * scale)}
        reader = decord.VideoReader(str(path), num_threads=1, **size)
        return list(reader.get_batch(indices).asnumpy())

    return read
