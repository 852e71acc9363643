"""The second reader: OpenCV, for what PyAV cannot open; grabs frame after frame, never seeks."""

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import VideoInfo
from sfvqa.video.fitting import Fit, Pixels
from sfvqa.video.readers.interface import DEEPEST_REORDERING, ReaderName, VideoReader, early_end_warning
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST, is_cut_transport_stream

_INTRA_FRAME = ord("I")
_RATE_TOLERANCE = 0.05  # steps between frames may differ by this much before the rate is called variable
_ENVIRONMENT_LOCK = threading.Lock()


class OpenCVReader(VideoReader):
    """Reads with OpenCV: one pass decodes everything to learn the times, another takes the wanted frames.

    It seeks nowhere because OpenCV's seeks return wrong frames. What it cannot do: see damage in the middle of a file
    (the decoder's repairs pass for frames), and vouch for times at variable rate, which it warns about.
    """

    name = ReaderName.OPENCV

    def __init__(self, path: Path) -> None:
        """Open a checked local file (see local_file); raises UnreadableVideoError if no frame of it can be read."""
        self._path = path
        self._capture = _open(path)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        milliseconds: list[float] = []
        intra_frames: list[int] = []
        start_seconds = 0.0
        fps = _positive(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        while self._capture.grab():
            if not milliseconds:
                start_seconds = self._capture.get(cv2.CAP_PROP_PTS) / fps
            if int(self._capture.get(cv2.CAP_PROP_FRAME_TYPE)) == _INTRA_FRAME:
                intra_frames.append(len(milliseconds))
            milliseconds.append(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        grabbed = len(milliseconds)
        claimed = _positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) / fps
        seconds, warnings = _seconds(milliseconds, fps)
        step = seconds[-1] / (grabbed - 1) if grabbed > 1 and seconds[-1] > 0 else 1 / fps
        length = seconds[-1] + step if seconds else 0.0
        # For some containers the claim is the time of the end rather than a length.
        is_short = claimed - max(length, start_seconds + length) > max(0.5, 2 * step)
        if is_short or is_cut_transport_stream(self._path):
            whole = intra_frames[-1] if len(intra_frames) > 1 else max(grabbed - DEEPEST_REORDERING, 0)
            seconds = seconds[:whole]
            warnings.append(early_end_warning(claimed, seconds[-1] + step if seconds else 0.0))
        if not seconds:
            raise UnreadableVideoError(
                f"OpenCV can decode no frame of “{self._path}”.", "The file is damaged: copy or download it again."
            )
        key_frames = tuple(place for place in intra_frames if place < len(seconds))
        super().__init__(self._describe(seconds, step), seconds, key_frames, warnings)

    def _describe(self, seconds: tuple[float, ...], step: float) -> VideoInfo:
        # OpenCV turns the picture by itself, and these are the sizes after that; its rotation is clockwise.
        rotation = -round(self._capture.get(cv2.CAP_PROP_ORIENTATION_META) / 90) * 90 % 360
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        codec = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip("\0 ").lower()
        width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else 1 / step
        return VideoInfo(self._path, len(seconds), fps, seconds[-1] + step, width, height, codec, rotation)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        self.close()
        self._capture = _open(self._path)
        wanted = set(indices)
        for index in range(indices[-1] + 1 if indices else 0):
            if not self._capture.grab():
                return
            if index in wanted:
                is_decoded, pixels = self._capture.retrieve()
                if is_decoded:
                    yield index, fit(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False))

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._capture.release()


def _open(path: Path) -> cv2.VideoCapture:
    with _quiet_and_local():
        capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise UnreadableVideoError(
            f"OpenCV cannot read “{path}” as a video.", "Check that it is a video file and complete."
        )
    return capture


@contextmanager
def _quiet_and_local() -> Iterator[None]:
    """Let OpenCV open only the file itself, and keep its and FFmpeg's log lines off stderr.

    The environment is the only way OpenCV takes these settings; it is put back at once.
    """
    settings = {
        "OPENCV_FFMPEG_CAPTURE_OPTIONS": (
            f"protocol_whitelist;{PROTOCOL_WHITELIST}|format_whitelist;{FORMAT_WHITELIST}"
        ),
        "OPENCV_FFMPEG_LOGLEVEL": "-8",  # AV_LOG_QUIET
    }
    with _ENVIRONMENT_LOCK:
        before = {name: os.environ.get(name) for name in settings}
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.update(settings)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(log_level)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _seconds(milliseconds: list[float], fps: float) -> tuple[tuple[float, ...], list[str]]:
    """Seconds from the first frame, and a warning where OpenCV's times cannot be relied on."""
    steps = [later - earlier for earlier, later in pairwise(milliseconds)]
    if any(step <= 0 for step in steps):
        if len(set(milliseconds)) == len(milliseconds):
            # Times in decoding order (AVI): the n-th frame shown takes the n-th of them.
            times = tuple((time - min(milliseconds)) / 1000 for time in sorted(milliseconds))
            return times, ["OpenCV gives this file's times out of order; they were put in order and may be off."]
        times = tuple(place / fps for place in range(len(milliseconds)))
        return times, [f"OpenCV gives no times for this file; a constant rate of {fps:.4g} frames a second is assumed."]
    times = tuple((time - milliseconds[0]) / 1000 for time in milliseconds)
    usual = sorted(steps)[len(steps) // 2] if steps else 0.0
    # Times are often rounded to the millisecond.
    if any(abs(step - usual) > max(_RATE_TOLERANCE * usual, 1.01) for step in steps):
        return times, [
            "The frame rate varies, and OpenCV's times for it may be off: read the file with PyAV if you can."
        ]
    return times, []


def _positive(value: float) -> float:
    """OpenCV answers nan or a negative number for what it does not know."""
    return value if value > 0 else 0.0
