"""Animated WebP and AVIF, with Pillow, whose libraries compose every frame; FFmpeg reads no WebP, of AVIF no alpha."""

from collections.abc import Generator
from pathlib import Path

import numpy as np

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.animation import SECONDS_FOR_ZERO
from sfvqa.video.readers.interface import ReaderName, VideoReader
from sfvqa.video.readers.picture_file import PILLOW_ERRORS, opened_picture, over_black


class AnimatedPictureReader(VideoReader):
    """Reads every frame in order, once for the times and once a `read`: each is made from the one before."""

    name = ReaderName.PILLOW

    def __init__(self, path: Path, kind: str) -> None:
        """kind: `webp` or `avif`; raises UnreadableVideoError if the first frame cannot be read."""
        self._path = path
        starts: list[float] = []
        length = 0.0
        with opened_picture(path) as image:
            claimed = int(getattr(image, "n_frames", 1))
            width, height = image.size
            try:
                for place in range(claimed):
                    image.seek(place)
                    image.load()
                    # Each time of an AVIF's is rounded by itself; WebP's are made of durations, of which some are 0.
                    starts.append(image.info["timestamp"] / 1000 if kind == "avif" else length)
                    length = starts[-1] + (image.info["duration"] / 1000 or SECONDS_FOR_ZERO)
            except PILLOW_ERRORS as error:
                if not starts:
                    raise UnreadableVideoError(
                        f"No frame of “{path}” can be decoded: it is damaged or cut off.", "Copy or download it again."
                    ) from error
        fps = (len(starts) - 1) / starts[-1] if len(starts) > 1 else 0.0
        info = VideoInfo(path, len(starts), fps, length, width, height, kind, 0)
        lost = claimed - len(starts)
        last = "last" if lost == 1 else f"last {lost}"
        warnings = [f"The file is damaged: the {last} of its {claimed} frames cannot be decoded."] if lost else []
        super().__init__(info, tuple(starts), (0,), warnings)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        with opened_picture(self._path) as image:
            for index in indices:
                try:
                    image.seek(index)
                    image.load()
                except PILLOW_ERRORS:
                    return
                yield index, fit(np.asarray(over_black(image)))

    def close(self) -> None:
        """The file is open only while it is read."""
