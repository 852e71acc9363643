"""The second reader: OpenCV, for what PyAV cannot open; grabs frame after frame, never seeks."""

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import DEEPEST_REORDERING, ReaderName, VideoReader, early_end_warning
from sfvqa.video.readers.container_bytes import check_not_encrypted, is_cut
from sfvqa.video.readers.local_file import FORMAT_WHITELIST, PROTOCOL_WHITELIST, FileState
from sfvqa.video.readers.picture_converter import size_with_square_pixels, usable_pixel_aspect
from sfvqa.video.readers.tracks import VideoTrack, choose_track, open_container
from sfvqa.wording import plural

_INTRA_FRAME = ord("I")
_RATE_TOLERANCE = 0.05  # steps between frames may differ by this much before the rate is called variable
_ENVIRONMENT_LOCK = threading.Lock()


class OpenCVReader(VideoReader):
    """Reads with OpenCV: one pass decodes everything to learn the times, another takes the wanted frames.

    It never seeks, because OpenCV's seeks return wrong frames. It cannot see damage in the middle of a file, nor vouch
    for times at variable rate, which it warns about. Pictures are turned, cropped and have square pixels, but OpenCV
    does not tell of mirroring, interlacing, colours and pixels that change their shape: combs stay, HD without a tag is
    taken for BT.601, HDR is not tone-mapped, alpha is dropped, and 4:3 that turns to 16:9 keeps the first shape.
    """

    name = ReaderName.OPENCV

    def __init__(self, path: Path) -> None:
        """Open a checked local file; raises UnreadableVideoError if no frame of it can be read."""
        self._path = path
        self._state = FileState.of(path)
        track = _track_of_players(path)
        self._capture = _open(path)
        try:
            self._prepare(track)
        except BaseException:
            self.close()
            raise

    def _prepare(self, track: VideoTrack) -> None:
        milliseconds: list[float] = []
        intra_frames: list[int] = []
        fps = _positive(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0
        while self._capture.grab():
            if int(self._capture.get(cv2.CAP_PROP_FRAME_TYPE)) == _INTRA_FRAME:
                intra_frames.append(len(milliseconds))
            milliseconds.append(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        grabbed = len(milliseconds)
        claimed = _positive(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) / fps
        seconds, warnings = _seconds(milliseconds, fps)
        step = seconds[-1] / (grabbed - 1) if grabbed > 1 and seconds[-1] > 0 else 1 / fps
        if is_cut(self._path):  # the claim may be that of the sound, or a guess
            whole = intra_frames[-1] if len(intra_frames) > 1 else max(grabbed - DEEPEST_REORDERING, 0)
            seconds = seconds[:whole]
            warnings.append(early_end_warning(claimed, seconds[-1] + step if seconds else 0.0))
        if not seconds:
            raise UnreadableVideoError(
                f"OpenCV can decode no frame of “{self._path}”.", "The file is damaged: copy or download it again."
            )
        self._crop = track.crop.turned(_rotation(self._capture))
        self._pixel_aspect, aspect_warnings = usable_pixel_aspect(_pixel_aspect(self._capture))
        warnings += [*track.warnings, *aspect_warnings, *_colour_warnings(self._capture)]
        key_frames = tuple(place for place in intra_frames if place < len(seconds))
        super().__init__(self._describe(seconds, step), seconds, key_frames, warnings)

    def _describe(self, seconds: tuple[float, ...], step: float) -> VideoInfo:
        rotation = _rotation(self._capture)
        code = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        codec = code.to_bytes(4, "little", signed=code < 0).decode("ascii", "replace").strip("\0 ").lower()
        width, height = size_with_square_pixels(
            int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)) - self._crop.left - self._crop.right,
            int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) - self._crop.top - self._crop.bottom,
            self._pixel_aspect,
        )
        fps = (len(seconds) - 1) / seconds[-1] if len(seconds) > 1 else 1 / step
        return VideoInfo(self._path, len(seconds), fps, seconds[-1] + step, width, height, codec, rotation)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        self.close()
        self._state.check()
        self._capture = _open(self._path)
        wanted = set(indices)
        for index in range(indices[-1] + 1 if indices else 0):
            if not self._capture.grab():
                return
            if index in wanted:
                is_decoded, whole = self._capture.retrieve()
                if is_decoded:
                    yield index, fit(self._as_shown(whole.astype(np.uint8, copy=False)))

    def _as_shown(self, whole: Pixels) -> Pixels:
        pixels = self._crop.apply(whole)
        size = size_with_square_pixels(pixels.shape[1], pixels.shape[0], self._pixel_aspect)
        if size != (pixels.shape[1], pixels.shape[0]):
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR).astype(np.uint8, copy=False)
        return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._capture.release()


def _track_of_players(path: Path) -> VideoTrack:
    """The track that PyAV would read, the first if it cannot open the file; OpenCV cannot choose, nor tell of a crop.

    Raises UnreadableVideoError if there is none, if OpenCV would show another one, or if it is encrypted.
    """
    try:
        container = open_container(path)
    except UnreadableVideoError:
        return VideoTrack(0)
    with container:
        track = choose_track(path, container)
        if track.index != container.streams.video[0].index:
            raise UnreadableVideoError(
                f"OpenCV reads only the first video track of “{path}”, and players show another one.",
                "Leave out --reader.",
            )
    check_not_encrypted(path, track)  # OpenCV would show what it makes of it
    return track


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
    whitelists = f"protocol_whitelist;{PROTOCOL_WHITELIST}|format_whitelist;{FORMAT_WHITELIST}"
    settings = {"OPENCV_FFMPEG_CAPTURE_OPTIONS": whitelists, "OPENCV_FFMPEG_LOGLEVEL": "-8"}  # AV_LOG_QUIET
    with _ENVIRONMENT_LOCK:
        before = {name: os.environ[name] for name in settings if name in os.environ}
        log_level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.update(settings)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(log_level)
            for name in settings:
                del os.environ[name]
            os.environ.update(before)


def _seconds(milliseconds: list[float], fps: float) -> tuple[tuple[float, ...], list[str]]:
    """Seconds from the first frame, and a warning where OpenCV's times cannot be relied on."""
    if len(set(milliseconds)) < len(milliseconds):
        rate = plural(float(f"{fps:.4g}"), "frame")
        warning = f"OpenCV gives no times for this file; a constant rate of {rate} a second is assumed."
        return tuple(place / fps for place in range(len(milliseconds))), [warning]
    # Where times come in decoding order (AVI), the n-th frame shown takes the n-th of them.
    in_order = sorted(milliseconds)
    times = tuple((time - in_order[0]) / 1000 for time in in_order)
    if in_order != milliseconds:
        return times, ["OpenCV gives this file's times out of order; they were put in order and may be off."]
    steps = [later - earlier for earlier, later in pairwise(milliseconds)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0.0
    # Times are often rounded to the millisecond.
    if any(abs(step - usual) > max(_RATE_TOLERANCE * usual, 1.01) for step in steps):
        return times, ["The frame rate varies, and OpenCV's times may be off: read the file with PyAV if you can."]
    return times, []


def _rotation(capture: cv2.VideoCapture) -> int:
    """Degrees counter-clockwise by which OpenCV, which names them clockwise, has turned the picture by itself."""
    return -round(capture.get(cv2.CAP_PROP_ORIENTATION_META) / 90) * 90 % 360


def _pixel_aspect(capture: cv2.VideoCapture) -> Fraction | None:
    """Width to height of a pixel after OpenCV has turned the picture; None if it is not known."""
    across, down = (int(_positive(capture.get(side))) for side in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
    if not across or not down:
        return None
    return Fraction(down, across) if _rotation(capture) in (90, 270) else Fraction(across, down)


def _colour_warnings(capture: cv2.VideoCapture) -> list[str]:
    """Sentences about what OpenCV loses, as far as the raw video tag of the pixel format (FFmpeg's raw.c) tells."""
    tag = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little", signed=True)
    is_described = tag[2] < ord(" ")  # as in Y, 3, 11, 10: YUV in three planes, 4:2:0, 10 bits
    if tag in (b"RGBA", b"BGRA", b"ARGB", b"ABGR") or (is_described and tag[:2] in (b"Y2", b"Y4", b"G4")):
        return ["OpenCV drops the transparency of this video: what is hidden behind it may show."]
    if is_described and tag[:2] == b"Y3" and tag[3] > 8:
        return [f"OpenCV does not tell whether this {tag[3]}-bit video is HDR: if so, its colours look flat."]
    return []


def _positive(value: float) -> float:
    """OpenCV answers nan or a negative number for what it does not know."""
    return value if value > 0 else 0.0
