"""One picture, from a file to upright RGB, with Pillow; which pictures make a video is for image_files to say.

Pillow is held to a list of formats that open nothing but the file, and to sizes known from the header. A JPEG or BMP
carries no checksums: bytes changed within it show as wrong pixels, which nothing can tell; missing bytes are errors.
"""

import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Named here, or Pillow would import all of its formats to find these.
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
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.tone_mapping import HLG, PQ, tone_map

MAX_PIXELS = 1 << 26
"""Of one picture (8192 × 8192): four times what cameras make, 200 MB as RGB."""

MAX_WHOLE_BYTES = 1 << 30
"""Pillow holds the whole of a WebP, AVIF or HEIF file in memory; a larger one is not taken for a picture."""

_PLUGINS = (
    AvifImagePlugin, BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin,
)  # fmt: skip
_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF")
_FORMATS_HELD_WHOLE = ("WEBP", "AVIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1")  # of stills
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

_SEVERAL_JPEGS = b"\xff\xd9\xff\xd8\xff"  # the end of one and the beginning of the next, never within one
_SEARCHED_BYTES = 1 << 24

# What Pillow raises on damaged files, beside the OSError it promises.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    MemoryError, struct.error, Image.DecompressionBombError,
)  # fmt: skip


@dataclass(frozen=True)
class PictureKind:
    """The format of a picture file (`jpeg`, `png`, `apng`, `webp`, `avif`, `heif`, `gif`, …), and whether it moves."""

    format: str
    is_animated: bool


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: pixels [H, W, 3] as shown, its format, and by how much it was turned (0, 90, 180, 270)."""

    pixels: Pixels
    format: str
    rotation: int
    has_more_pages: bool


def kind_of(file: Path) -> PictureKind | None:
    """What the content of the file is, whatever its name; None if it is no picture, or is a stream of JPEG frames.

    Reads no more than headers (of WebP, AVIF and HEIF, the file). Raises UnreadableVideoError for a picture too
    large to be opened.
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
    return PictureKind(form, is_animated)


def read_picture(file: Path) -> Picture:
    """Read one picture (of an animation or of several pages the first); UnreadableVideoError if it is not whole."""
    with _clear_errors(file), _no_warnings(), opened_picture(file) as image:
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
        with _no_warnings():
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


def _as_sdr(pixels: Pixels, file: Path) -> Pixels:
    with file.open("rb") as stream:
        colours = _COLOURS.search(stream.read(_HEAD_BYTES))
    if colours is None or (transfer := int.from_bytes(colours[2])) not in (PQ, HLG):
        return pixels
    return tone_map(pixels, transfer, int.from_bytes(colours[1]) != _BT709)


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Keep Pillow from warning of damage, which is either harmless or raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


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
