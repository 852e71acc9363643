"""Pictures as videos, with Pillow: a still is one frame, a folder of them one frame a second.

Pillow is held to a list of formats that open nothing but the file, and to sizes known from the header. A JPEG or BMP
carries no checksums: bytes changed within it show as wrong pixels, which nothing can tell; missing bytes are errors.
"""

import re
import struct
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
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
from sfvqa.video.readers import ReaderName, VideoReader
from sfvqa.video.readers.local_file import UNREAD_SUFFIXES, pictures_in
from sfvqa.video.readers.picture_converter import HLG, MAX_PIXELS, PQ, tone_map
from sfvqa.wording import first_few

# What Pillow raises on damaged files, beside the OSError it promises.
PILLOW_ERRORS = (
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
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, 0),
    3: (Image.Transpose.ROTATE_180, 180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, 180),
    5: (Image.Transpose.TRANSPOSE, 90),
    6: (Image.Transpose.ROTATE_270, 270),
    7: (Image.Transpose.TRANSVERSE, 270),
    8: (Image.Transpose.ROTATE_90, 90),
}
"""How a picture with this EXIF orientation is set upright, and the degrees counter-clockwise that are in it."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: pixels [H, W, 3] as shown, its format, and by how much it was turned (0, 90, 180, 270)."""

    pixels: Pixels
    format: str
    rotation: int
    has_more_pages: bool


def open_pictures(path: Path) -> VideoReader | None:
    """Open a folder of images, an animation or a still by its content; None if it is none. UnreadableVideoError."""
    if path.is_dir():
        return PictureReader(path, pictures_in(path), pictures_in(path, UNREAD_SUFFIXES))
    if (kind := _kind_of(path)) is None:
        return None
    form, is_animated = kind
    if not is_animated:
        return PictureReader(path, [path])
    from sfvqa.video.readers.animation import AnimationReader, PillowAnimationReader

    return (PillowAnimationReader if form in ("webp", "avif") else AnimationReader)(path, form)


def _kind_of(file: Path) -> tuple[str, bool] | None:
    """The format of a picture file (`jpeg`, `apng`, `heif`, …) by its content, and whether it moves.

    None if it is no picture, or is a stream of JPEG frames. Reads no more than headers (of WebP, AVIF and HEIF, the
    file). Raises UnreadableVideoError for a picture too large to be opened.
    """
    with _clear_errors(file):
        try:
            with opened_picture(file) as image:
                form = _format_of(image)
                is_animated = form in ("apng", "gif") or (
                    form in ("webp", "avif") and getattr(image, "is_animated", False)
                )
        except UnidentifiedImageError:
            return None
    if form == "jpeg" and image.format != "MPO":
        with file.open("rb") as stream:
            if _SEVERAL_JPEGS in stream.read(_SEARCHED_BYTES):
                return None
    return form, is_animated


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
        step = _SECONDS_A_PICTURE if is_folder else 0.0
        height, width = first.pixels.shape[:2]
        info = VideoInfo(
            path=path,
            num_frames=len(self._pictures),
            fps=1 / step if is_folder else 0.0,
            duration_seconds=step * len(self._pictures),
            width=width,
            height=height,
            codec=first.format,
            rotation=first.rotation,
        )
        warnings = []
        if is_folder:
            warnings.append(
                "Pictures in a folder carry no times: they are taken in the order of their names, one a second."
            )
        if left_out:
            is_one = len(left_out) == 1
            what = "1 picture in a format that is" if is_one else f"{len(left_out)} pictures in formats that are"
            warnings.append(f"The folder has {what} not read, left out: {first_few([file.name for file in left_out])}.")
        if first.has_more_pages and not is_folder:
            warnings.append("The picture has more than one page: only the first is read.")
        places = range(len(self._pictures))
        super().__init__(info, tuple(step * place for place in places), tuple(places), warnings)

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


# --- One picture file ---


def read_picture(file: Path) -> Picture:
    """Read one picture (of an animation or of several pages the first); UnreadableVideoError if it is not whole."""
    # Pillow warns of damage, which is either harmless or raises.
    with _clear_errors(file), warnings.catch_warnings(action="ignore"), opened_picture(file) as image:
        if image.format == "TIFF" and image.tag_v2.get(_SUBFILE_TYPE, 0) & _IS_PREVIEW:  # type: ignore[attr-defined]
            raise ValueError("its first page is a preview, as in a camera's raw files")
        image.load()
        upright, rotation = _upright(image)
        pixels = np.asarray(over_black(upright))
        if image.format in ("AVIF", "HEIF"):
            pixels = _as_sdr(pixels, file)
        return Picture(pixels, _format_of(image), rotation, image.format == "TIFF" and _has_second_page(image))


@contextmanager
def opened_picture(file: Path) -> Iterator[Image.Image]:
    """Open a picture of an allowed format and size; raises PILLOW_ERRORS, and UnidentifiedImageError if it is none."""
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
def _clear_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except PILLOW_ERRORS as error:
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
    except PILLOW_ERRORS:
        return False
    return True


def _upright(image: Image.Image) -> tuple[Image.Image, int]:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except PILLOW_ERRORS:  # notes that are damaged leave the picture as it is stored
        orientation = None
    if orientation not in _UPRIGHT:
        return image, 0
    method, degrees = _UPRIGHT[orientation]
    return image.transpose(method), degrees


def over_black(image: Image.Image) -> Image.Image:
    """The picture as RGB of 8 bits, what is transparent over black; 16-bit grey keeps its upper 8 bits."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers without a known white")
    if not image.has_transparency_data:
        return image.convert("RGB")
    picture = image.convert("RGBA")
    background = Image.new("RGB", picture.size)
    background.paste(picture, mask=picture.getchannel("A"))
    return background


def _as_sdr(pixels: Pixels, file: Path) -> Pixels:
    with file.open("rb") as stream:
        colours = _COLOURS.search(stream.read(_HEAD_BYTES))
    if colours is None or (transfer := int.from_bytes(colours[2])) not in (PQ, HLG):
        return pixels
    return tone_map(pixels, transfer, int.from_bytes(colours[1]) != _BT709)
