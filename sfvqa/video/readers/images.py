"""Pictures as videos: a still is one frame, a folder of them one frame a second, an animation what it is.

Pillow is held to a list of formats that open nothing but the file, and to sizes known from the header. A JPEG or BMP
carries no checksums: bytes changed within it show as wrong pixels, which nothing can tell; missing bytes are errors.

Of animations PyAV reads GIF and APNG, Pillow WebP and AVIF. FFmpeg composes GIF and APNG to the letter of their rules,
where Pillow gave other pixels in half of the frames of random files; it reads no WebP, and no alpha of AVIF.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import Fit
from sfvqa.video.readers import ReaderName, VideoReader, nothing_decodable
from sfvqa.video.readers.local_file import PROTOCOL_WHITELIST, UNREAD_SUFFIXES, pictures_in
from sfvqa.video.readers.picture_converter import HLG, MAX_PIXELS, PQ, over_black, tone_map
from sfvqa.wording import first_few

# What Pillow raises on damaged files, beside the OSError it promises.
_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    MemoryError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
MAX_WHOLE_BYTES = 1 << 30
"""Pillow holds the whole of a WebP, AVIF or HEIF file in memory; a larger one is not taken for a picture."""
# Imported, or Pillow would import all of its formats to find these.
_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF")
_FORMATS_HELD_WHOLE = ("WEBP", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")  # of stills
_HEIF_SUFFIXES = (".avif", ".heic", ".heif", ".hif")
_SECONDS_A_PICTURE = 1.0  # in a folder, where nothing says it
_SEVERAL_JPEGS = b"\xff\xd9\xff\xd8\xff"  # the end of one and the beginning of the next, never within one
_SEARCHED_BYTES = 1 << 24
_HEAD_BYTES = 1 << 14
# The box of colours, by numbers of ITU-T H.273: primaries, transfer characteristics. Pillow leaves HDR as it is.
_COLOURS = re.compile(rb"colrnclx(.{2})(.{2})", re.DOTALL)
_BT709 = 1
_ORIENTATION = 0x0112  # EXIF and TIFF tag
_SUBFILE_TYPE, _IS_PREVIEW = 254, 1  # TIFF tag, and its bit for a smaller copy of another picture of the file
# How a picture with this EXIF orientation is set upright, and the degrees counter-clockwise that are in it.
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, 0),
    3: (Image.Transpose.ROTATE_180, 180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, 180),
    5: (Image.Transpose.TRANSPOSE, 90),
    6: (Image.Transpose.ROTATE_270, 270),
    7: (Image.Transpose.TRANSVERSE, 270),
    8: (Image.Transpose.ROTATE_90, 90),
}


def open_pictures(path: Path) -> VideoReader | None:
    """Open a folder of images, an animation or a still by its content; None if it is none, or a stream of JPEG frames.

    Reads no more than headers (of WebP, AVIF and HEIF, the file) to know. Raises UnreadableVideoError.
    """
    if path.is_dir():
        return PictureReader(path, pictures_in(path), pictures_in(path, UNREAD_SUFFIXES))
    with clear_errors(path):
        try:
            with _opened(path) as image:
                form = _format_of(image)
                is_held_whole = image.format in _FORMATS_HELD_WHOLE
                is_animated = is_held_whole and getattr(image, "is_animated", False)
        except UnidentifiedImageError:
            return None
    if form in _ANIMATIONS:
        return AnimationReader(path, form)
    if is_animated:
        return PillowAnimationReader(path, form)
    if image.format == "JPEG":
        with path.open("rb") as stream:
            if _SEVERAL_JPEGS in stream.read(_SEARCHED_BYTES):
                return None
    return PictureReader(path, [path])


# --- One picture file ---


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: pixels [H, W, 3] as shown, its format, and by how much it was turned (0, 90, 180, 270)."""

    pixels: Pixels
    format: str
    rotation: int
    has_more_pages: bool


def read_picture(file: Path) -> Picture:
    """Read one picture (of an animation or of several pages the first); UnreadableVideoError if it is not whole."""
    # Pillow warns of damage, which is either harmless or raises.
    with clear_errors(file), warnings.catch_warnings(action="ignore"), _opened(file) as image:
        if image.format == "TIFF" and image.tag_v2.get(_SUBFILE_TYPE, 0) & _IS_PREVIEW:  # type: ignore[attr-defined]
            raise ValueError("its first page is a preview, as in a camera's raw files")
        pixels, rotation = as_shown(image)
        if image.format in ("AVIF", "HEIF"):
            pixels = _as_sdr(pixels, file)
        return Picture(pixels, _format_of(image), rotation, image.format == "TIFF" and _has_second_page(image))


@contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open a picture of an allowed format and size; raises _PILLOW_ERRORS, and UnidentifiedImageError if it is none."""
    with file.open("rb") as stream:
        formats = list(_FORMATS)
        if file.stat().st_size <= MAX_WHOLE_BYTES:
            formats += _FORMATS_HELD_WHOLE + _heif_if(stream.read(12))
            stream.seek(0)
        with warnings.catch_warnings(action="ignore"):
            image = Image.open(stream, formats=formats)
        with image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"it has {image.width} × {image.height} pixels, more than {MAX_PIXELS:,}")
            yield image


def _heif_if(head: bytes) -> tuple[str, ...]:
    """The format of phones' pictures if a file begins like one; its plugin is slow to import."""
    if head[4:8] != b"ftyp" or head[8:12] not in _HEIF_BRANDS:
        return ()
    try:
        import pi_heif.HeifImagePlugin  # noqa: F401  importing it tells Pillow of it
    except ImportError:  # on a platform without it PyAV reads those that are not made of tiles
        return ()
    return ("HEIF",)


@contextmanager
def clear_errors(file: Path) -> Iterator[None]:
    """What Pillow raises becomes an UnreadableVideoError that names the picture."""
    try:
        yield
    except _PILLOW_ERRORS as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
        raise UnreadableVideoError(
            f"The picture “{file}” cannot be read: {reason.rstrip('.')}.", "Copy or download it again, or convert it."
        ) from error


def _format_of(image: Image.Image) -> str:
    if image.format == "PNG" and getattr(image, "is_animated", False):
        return "apng"
    # A phone's JPEG that carries more pictures behind the first.
    return "jpeg" if image.format == "MPO" else str(image.format).lower()


def _has_second_page(image: Image.Image) -> bool:
    """Whether there is another page, by going to it."""
    try:
        image.seek(1)
    except _PILLOW_ERRORS:
        return False
    return True


def as_shown(image: Image.Image) -> tuple[Pixels, int]:
    """The picture [H, W, 3] upright, in RGB of 8 bits, and by how much it was turned. Raises what Pillow raises."""
    image.load()
    upright, rotation = _upright(image)
    return _as_rgb(upright), rotation


def _upright(image: Image.Image) -> tuple[Image.Image, int]:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _PILLOW_ERRORS:  # notes that are damaged leave the picture as it is stored
        orientation = None
    if orientation not in _UPRIGHT:
        return image, 0
    method, degrees = _UPRIGHT[orientation]
    return image.transpose(method), degrees


def _as_rgb(image: Image.Image) -> Pixels:
    """The picture as RGB of 8 bits, what is transparent over black; 16-bit grey keeps its upper 8 bits."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers without a known white")
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    return over_black(np.asarray(image.convert("RGBA")))


def _as_sdr(pixels: Pixels, file: Path) -> Pixels:
    with file.open("rb") as stream:
        colours = _COLOURS.search(stream.read(_HEAD_BYTES))
    if colours is None or (transfer := int.from_bytes(colours[2])) not in (PQ, HLG):
        return pixels
    return tone_map(pixels, transfer, int.from_bytes(colours[1]) != _BT709)


# --- Stills, and folders of them ---


class PictureReader(VideoReader):
    """Reads pictures with Pillow, each when it is asked for; memory holds one.

    One picture is a frame at 0 s that lasts 0 s, at a rate of 0 (unknown). Of a folder each lasts a second; `info` has
    the size, codec and rotation of the first that can be read.
    """

    name = ReaderName.PILLOW

    def __init__(self, path: Path, pictures: Sequence[Path], left_out: Sequence[Path] = ()) -> None:
        """`left_out`: in formats that are not read; raises UnreadableVideoError if no picture can be read."""
        self._pictures = list(pictures)
        first = _first_readable(path, self._pictures)
        is_folder = path not in self._pictures
        step, fps = (_SECONDS_A_PICTURE, 1 / _SECONDS_A_PICTURE) if is_folder else (0.0, 0.0)
        height, width = first.pixels.shape[:2]
        count = len(self._pictures)
        info = VideoInfo(path, count, fps, step * count, width, height, first.format, first.rotation)
        warnings = []
        if is_folder:
            warnings.append(
                "Pictures in a folder have no times: they are taken in the order of their names, one per second."
            )
        if left_out:
            is_one = len(left_out) == 1
            what = "1 picture in a format that is" if is_one else f"{len(left_out)} pictures in formats that are"
            warnings.append(f"The folder has {what} not read, left out: {first_few([file.name for file in left_out])}.")
        if first.has_more_pages and not is_folder:
            warnings.append("The picture has more than one page: only the first is read.")
        super().__init__(info, tuple(step * place for place in range(count)), tuple(range(count)), warnings)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index in indices:
            try:
                picture = _read(self._pictures[index])
            except UnreadableVideoError:
                yield index, f"“{self._pictures[index].name}” cannot be read"
            else:
                yield index, fit(picture.pixels)


def _first_readable(path: Path, pictures: Sequence[Path]) -> Picture:
    reason: UnreadableVideoError | None = None
    for picture in pictures:
        try:
            return _read(picture)
        except UnreadableVideoError as error:
            if len(pictures) == 1:
                raise
            reason = reason or error
    raise UnreadableVideoError(
        f"“{path}” holds no image that can be read ({len(pictures)} were tried).", "Give a folder with whole pictures."
    ) from reason


def _read(file: Path) -> Picture:
    """The picture as it is when the file is read alone: with PyAV those of HEIF's kinds that Pillow does not know."""
    try:
        return read_picture(file)
    except UnreadableVideoError:
        if file.suffix.lower() not in _HEIF_SUFFIXES:
            raise
        from sfvqa.video.readers.pyav import PyAVReader

        try:
            with PyAVReader(file, num_threads=1) as opened:
                (frame,) = opened.read([0])
        except (UnreadableVideoError, ValueError):  # ValueError: it has no frame
            pass
        else:
            return Picture(frame.pixels, "heif", opened.info.rotation, has_more_pages=False)
        raise


# --- Animations: each frame is a change to the one before, so they are decoded in order ---

_SECONDS_FOR_ZERO = 0.1  # how long a frame is shown whose duration is 0, as in browsers
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
            raise nothing_decodable(path)
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
        ending, is_whole, _ = _ANIMATIONS[self._kind]
        with self._path.open("rb") as stream:
            stream.seek(max(self._path.stat().st_size - _TAIL_BYTES, 0))
            is_cut = not stream.read().rstrip(b"\0").endswith(ending)
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
        wanted, num_needed = set(indices), indices[-1] + 1 if indices else 0
        with self._open() as container:
            for index, packet in enumerate(islice(container.demux(container.streams.video[0]), num_needed)):
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    return
                if len(frames) != 1 or frames[0].is_corrupt:
                    return
                if index in wanted:
                    yield index, fit(over_black(frames[0].to_ndarray(format="rgba").astype(np.uint8, copy=False)))

    def _open(self) -> InputContainer:
        options = {"protocol_whitelist": PROTOCOL_WHITELIST, **_ANIMATIONS[self._kind][2]}
        try:
            container = av.open(str(self._path.absolute()), format=self._kind, options=options)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise nothing_decodable(self._path) from error
        if not container.streams.video or container.streams.video[0].codec_context is None:
            container.close()
            raise nothing_decodable(self._path)
        container.streams.video[0].thread_count = 1  # a frame comes out for each packet that goes in
        return container


def _is_whole_gif_frame(packet: bytes) -> bool:
    """Whether a packet, of extensions and then one image, has all of the image's data: FFmpeg shows half a frame."""
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


_ANIMATIONS = {
    "gif": (b";", _is_whole_gif_frame, {}),
    "apng": (b"IEND\xae\x42\x60\x82", _is_whole_apng_frame, {"default_fps": str(round(1 / _SECONDS_FOR_ZERO))}),
}
"""How a whole file ends, how a whole frame is told, and FFmpeg's options; a GIF's 0 is _SECONDS_FOR_ZERO anyway."""


class PillowAnimationReader(VideoReader):
    """Reads a WebP or AVIF: every frame in order, once for the times and once a `read`."""

    name = ReaderName.PILLOW

    def __init__(self, path: Path, kind: str) -> None:
        """kind: `webp` or `avif`; raises UnreadableVideoError if the first frame cannot be read."""
        self._path = path
        starts: list[float] = []
        length = 0.0
        with _opened(path) as image:
            claimed = int(getattr(image, "n_frames", 1))
            width, height = image.size
            try:
                for place in range(claimed):
                    image.seek(place)
                    image.load()
                    # Each time of an AVIF's is rounded by itself; WebP's are made of durations, of which some are 0.
                    starts.append(image.info["timestamp"] / 1000 if kind == "avif" else length)
                    length = starts[-1] + (image.info["duration"] / 1000 or _SECONDS_FOR_ZERO)
            except _PILLOW_ERRORS as error:
                if not starts:
                    raise nothing_decodable(path) from error
        fps = (len(starts) - 1) / starts[-1] if len(starts) > 1 else 0.0
        info = VideoInfo(path, len(starts), fps, length, width, height, kind, 0)
        lost = claimed - len(starts)
        last = "last" if lost == 1 else f"last {lost}"
        warnings = [f"The file is damaged: the {last} of its {claimed} frames cannot be decoded."] if lost else []
        super().__init__(info, tuple(starts), (0,), warnings)

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        with _opened(self._path) as image:
            for index in indices:
                try:
                    image.seek(index)
                    image.load()
                except _PILLOW_ERRORS:
                    return
                yield index, fit(_as_rgb(image))
