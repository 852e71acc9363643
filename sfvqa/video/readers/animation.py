"""Animated pictures, frame by frame: GIF and APNG with PyAV, WebP and AVIF with Pillow.

Each frame is a change to the one before, so they are decoded in order. FFmpeg composes GIF and APNG to the letter of
their rules, where Pillow gave other pixels in half of the frames of random files (mixed disposal methods, frames
smaller than the picture); it says nothing of a GIF cut within a frame, reads no WebP, and no alpha of AVIF.
"""

import zlib
from collections.abc import Generator
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import ReaderName, VideoReader
from sfvqa.video.readers.images import PILLOW_ERRORS, opened_picture, over_black
from sfvqa.video.readers.local_file import PROTOCOL_WHITELIST

_SECONDS_FOR_ZERO = 0.1  # how long a frame is shown whose duration is 0, as in browsers
# FFmpeg's own for a GIF; an APNG takes it as a rate.
_OPTIONS = {
    "gif": {"protocol_whitelist": PROTOCOL_WHITELIST},
    "apng": {"protocol_whitelist": PROTOCOL_WHITELIST, "default_fps": str(round(1 / _SECONDS_FOR_ZERO))},
}
_ENDS = {"gif": b";", "apng": b"IEND\xae\x42\x60\x82"}
_TAIL_BYTES = 64
_EXTENSION, _IMAGE, _HAS_PALETTE = 0x21, 0x2C, 0x80


class AnimationReader(VideoReader):
    """Reads a GIF or APNG; a frame counts if it is whole, and after one that is damaged there are no more."""

    name = ReaderName.PYAV

    def __init__(self, path: Path, kind: str) -> None:
        """kind: `gif` or `apng`, of a size checked before; raises UnreadableVideoError if it holds no whole frame."""
        self._path, self._kind = path, kind
        with self._open() as container:
            stream = container.streams.video[0]
            width, height, time_base = stream.codec_context.width, stream.codec_context.height, stream.time_base
            times, is_cut = self._whole_frames(container)
        if not times or not width or time_base is None:
            raise _nothing_decodable(path)
        *starts, end = (float((time - times[0]) * time_base) for time in times)
        fps = (len(starts) - 1) / starts[-1] if len(starts) > 1 else 0.0
        length = end if len(starts) > 1 or is_cut else 0.0  # one frame that is all there is: a still
        warnings = []
        if is_cut:
            first = "first frame" if len(starts) == 1 else f"first {len(starts):,} frames"
            warnings.append(f"The file ends early or is damaged: only its {first} can be read.")
        info = VideoInfo(path, len(starts), fps, length, width, height, kind, 0)
        super().__init__(info, tuple(starts), (0,), warnings)

    def _whole_frames(self, container: InputContainer) -> tuple[list[int], bool]:
        """When each whole frame begins and the last one ends, empty if there is none; whether any is missing."""
        with self._path.open("rb") as stream:
            stream.seek(max(self._path.stat().st_size - _TAIL_BYTES, 0))
            is_cut = not stream.read().rstrip(b"\0").endswith(_ENDS[self._kind])
        is_whole = {"gif": _is_whole_gif_frame, "apng": _is_whole_apng_frame}[self._kind]
        starts: list[int] = []
        end = 0
        try:
            for packet in container.demux(container.streams.video[0]):
                if not packet.size:
                    break
                if packet.pts is None or not is_whole(bytes(packet)):
                    is_cut = True
                    break
                starts.append(packet.pts)
                end = packet.pts + (packet.duration or 0)
        except av.FFmpegError:
            is_cut = True
        if starts and is_cut and self._kind == "apng":
            end = starts.pop()  # of its chunks, each of them whole, some may be missing
        return ([*starts, end] if starts else []), is_cut

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        if not indices:
            return
        wanted = set(indices)
        with self._open() as container:
            stream = container.streams.video[0]
            for index, packet in enumerate(container.demux(stream)):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    return
                if index > indices[-1] or len(frames) != 1 or frames[0].is_corrupt:
                    return
                if index in wanted:
                    yield index, fit(np.asarray(over_black(Image.fromarray(frames[0].to_ndarray(format="rgba")))))

    def _open(self) -> InputContainer:
        try:
            container = av.open(str(self._path.absolute()), format=self._kind, options=_OPTIONS[self._kind])
        except (av.FFmpegError, OSError, ValueError) as error:
            raise _nothing_decodable(self._path) from error
        if not container.streams.video or container.streams.video[0].codec_context is None:
            container.close()
            raise _nothing_decodable(self._path)
        container.streams.video[0].thread_count = 1  # a frame comes out for each packet that goes in
        return container


def _is_whole_gif_frame(packet: bytes) -> bool:
    """Whether a packet, of extensions and then one image, has all of the image's data."""
    try:
        at = 0
        if packet.startswith(b"GIF8"):  # the first frame comes with the file's header and palette
            at = 13 + _palette_bytes(packet[10])
        while packet[at] == _EXTENSION:
            at = _after_blocks(packet, at + 2)
        if packet[at] != _IMAGE:
            return False
        _after_blocks(packet, at + 11 + _palette_bytes(packet[at + 9]))
    except IndexError:
        return False
    return True


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _HAS_PALETTE else 0


def _after_blocks(packet: bytes, at: int) -> int:
    """Where the chain of data blocks that begins at `at` is over; IndexError if the packet is over before."""
    while packet[at]:
        at += packet[at] + 1
    return at + 1


def _is_whole_apng_frame(packet: bytes) -> bool:
    """Whether a packet, of a PNG's chunks, has all of each, as their checksums say."""
    at = 0
    while at < len(packet):
        stop = at + 8 + int.from_bytes(packet[at : at + 4])
        if zlib.crc32(packet[at + 4 : stop]).to_bytes(4) != packet[stop : stop + 4]:
            return False
        at = stop + 4
    return True


class PillowAnimationReader(VideoReader):
    """Reads a WebP or AVIF: every frame in order, once for the times and once a `read`."""

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
                    length = starts[-1] + (image.info["duration"] / 1000 or _SECONDS_FOR_ZERO)
            except PILLOW_ERRORS as error:
                if not starts:
                    raise _nothing_decodable(path) from error
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


def _nothing_decodable(path: Path) -> UnreadableVideoError:
    return UnreadableVideoError(
        f"No frame of “{path}” can be decoded: it is damaged or cut off.", "Copy or download it again."
    )
