"""A decoded frame becomes the picture that a player shows: upright, square pixels, not interlaced, opaque, SDR, RGB."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Self

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels
from sfvqa.video.readers.tracks import Crop

MAX_PIXELS = 2**26
"""Of the largest picture that is read: 8192 × 8192, four times what cameras make, 200 MB as RGB."""
PQ, HLG = 16, 18
"""Transfer characteristics of HDR video (ITU-T H.273): SMPTE ST 2084 and ARIB STD-B67."""
# Matrix coefficients by their number in ITU-T H.273; 10 is BT.2020's constant luminance, near enough to its other one.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.SMPTE170M,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}
_UNSPECIFIED_MATRICES = (0, 2)  # 0 is RGB, which is never true of a frame in YUV
_SMALLEST_DEINTERLACED = 3  # yadif's own limit
# Uncompressed pictures, and what Video for Windows captures them with: their writers mostly leave the fourth byte at 0
# rather than mean transparency by it.
_UNDEFINED_ALPHA = frozenset(("rawvideo", "ayuv", "targa", "msrle", "huffyuv", "ffvhuff", "lagarith", "cscd"))
_LIMITED_TO_FULL = ((np.arange(256) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)


class PictureConverter:
    """Turns the frames of one opened stream into pictures, for one thread.

    Follows changes of size and format in mid-stream, and of the shape of pixels (see Handle.decode) unless the
    container overrules what the bitstream said at its start. `crop` is what the container has players cut off.
    """

    def __init__(self, stream: VideoStream, crop: Crop) -> None:
        self._reformatter = VideoReformatter()
        self._crop = crop
        self._has_defined_alpha = stream.codec_context.name not in _UNDEFINED_ALPHA
        self._aspect_at_start, self._aspect_warnings = usable_pixel_aspect(stream.sample_aspect_ratio)
        self._follows_bitstream = stream.sample_aspect_ratio == stream.codec_context.sample_aspect_ratio

    def size_shown(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of the picture that `convert` makes; raises UnreadableVideoError if it is too large."""
        width, height = self._size_upright(frame)
        return (height, width) if Orientation.of(frame).swaps_axes else (width, height)

    def warnings_about(self, frame: VideoFrame) -> list[str]:
        """What the user should know about pictures like this one."""
        warnings = list(self._aspect_warnings)
        if not frame.format.is_rgb and frame.colorspace not in (*_MATRICES, *_UNSPECIFIED_MATRICES):
            warnings.append("The video stores its colours in an unknown way: they may be wrong.")
        return warnings

    def convert(self, frame: VideoFrame) -> Pixels:
        """The picture [H, W, 3] uint8 RGB; raises UnreadableVideoError if it is too large or cannot be converted.

        Interlaced frames keep their first field, and of the second what does not comb (yadif, within the frame alone);
        alpha is put over black, unless it is 0 all over in a format that hardly defines it; HDR is tone-mapped.
        """
        orientation = Orientation.of(frame)
        width, height = self._size_upright(frame)
        has_alpha = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        try:
            if filters := _filters_for(frame, self._crop.within(frame.width, frame.height)):
                frame = _filtered(frame, filters)
            pixels = self._to_rgb(frame, width, height, "rgba" if has_alpha else "rgb24")
        except (av.FFmpegError, ValueError) as error:
            raise UnreadableVideoError(
                f"The pictures of this video (format {frame.format.name}) cannot be converted to RGB.",
                "Convert the video to H.264.",
            ) from error
        colours = pixels[..., :3] if has_alpha else pixels
        if _is_limited_grey(frame):
            colours = _LIMITED_TO_FULL[colours]
        if frame.color_trc in (PQ, HLG):
            colours = tone_map(colours, frame.color_trc, frame.color_primaries != ColorPrimaries.BT709)
        if has_alpha and (self._has_defined_alpha or pixels[..., 3].any()):
            colours = over_black(np.dstack([colours, pixels[..., 3]]))
        return orientation.apply(colours)

    def _size_upright(self, frame: VideoFrame) -> tuple[int, int]:
        crop, aspect, said = self._crop.within(frame.width, frame.height), self._aspect_at_start, frame.opaque
        if self._follows_bitstream and isinstance(said, list):
            aspect, _ = usable_pixel_aspect(said[0])
        width, height = frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom
        return size_with_square_pixels(width, height, aspect)

    def _to_rgb(self, frame: VideoFrame, width: int, height: int, layout: str) -> Pixels:
        matrix = None if frame.format.is_rgb else _matrix(frame)
        # More threads would only be woken for a millisecond's work.
        converted = self._reformatter.reformat(frame, width, height, layout, src_colorspace=matrix, threads=1)
        return converted.to_ndarray().astype(np.uint8, copy=False)


def _matrix(frame: VideoFrame) -> Colorspace:
    """Which Y′CbCr the frame is in: as it says, else by its size (as mpv), HDR by its standard."""
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    if frame.color_trc in (PQ, HLG):
        return Colorspace.BT2020
    is_high_definition = frame.width >= 1280 or frame.height > 576
    return Colorspace.ITU709 if is_high_definition else Colorspace.ITU601


def _is_limited_grey(frame: VideoFrame) -> bool:
    """FFmpeg takes all grey for full range, whatever its tag says."""
    layout = frame.format
    is_grey = not layout.is_rgb and not layout.has_palette and len(layout.components) <= 2
    return is_grey and frame.color_range == ColorRange.MPEG


def _filters_for(frame: VideoFrame, crop: Crop) -> list[tuple[str, str]]:
    filters = []
    if frame.interlaced_frame and min(frame.width, frame.height) >= _SMALLEST_DEINTERLACED:
        # It leaves alone what does not comb, such as progressive pictures that are flagged as interlaced.
        filters.append(("yadif", "mode=send_frame:deint=interlaced"))
    if crop != Crop():
        size = f"w=iw-{crop.left + crop.right}:h=ih-{crop.top + crop.bottom}"
        filters.append(("crop", f"{size}:x={crop.left}:y={crop.top}:exact=1"))
    return filters


def _filtered(frame: VideoFrame, filters: Sequence[tuple[str, str]]) -> VideoFrame:
    """The frame after FFmpeg's filters; it is the only one that they see, so nothing can shift in time."""
    graph = Graph()
    source = graph.add(
        "buffer",
        f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:time_base=1/1:pixel_aspect=1/1"
        f":colorspace={frame.colorspace}:range={frame.color_range}",
    )
    graph.link_nodes(source, *(graph.add(name, options) for name, options in filters), graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    graph.vpush(None)
    return graph.vpull()


def over_black(pixels: Pixels) -> Pixels:
    """RGBA [H, W, 4] as RGB [H, W, 3], what is transparent over black."""
    picture = Image.fromarray(pixels)
    background = Image.new("RGB", picture.size)
    background.paste(picture, mask=picture.getchannel("A"))
    return np.asarray(background)


# --- Which way up ---


@dataclass(frozen=True)
class Orientation:
    """What makes a stored picture stand upright: its axes swapped, then its columns and its rows reversed."""

    swaps_axes: bool
    reverses_columns: bool
    reverses_rows: bool

    @classmethod
    def of(cls, frame: VideoFrame) -> Self:
        """The nearest one to the frame's display matrix, which takes a stored (x, y) to (a·x + c·y, b·x + d·y)."""
        a, b, c, d = _display_matrix(frame)
        if abs(b) > abs(a):
            return cls(True, c < 0, b < 0)
        return cls(False, a < 0, d < 0)

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise (0, 90, 180, 270); a mirrored picture is turned before it is mirrored sideways."""
        if self.swaps_axes:
            return 90 if self.reverses_rows else 270
        return 180 if self.reverses_rows else 0

    def apply(self, pixels: Pixels) -> Pixels:
        """The stored picture [H, W, 3] as it is shown."""
        if self.swaps_axes:
            pixels = pixels.transpose(1, 0, 2)
        rows, columns = -1 if self.reverses_rows else 1, -1 if self.reverses_columns else 1
        return np.ascontiguousarray(pixels[::rows, ::columns])


UPRIGHT = Orientation(swaps_axes=False, reverses_columns=False, reverses_rows=False)


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    try:
        matrix = frame.side_data["DISPLAYMATRIX"]  # type: ignore[typeddict-item]  # PyAV's stub names one kind
    except KeyError:
        return 1, 0, 0, 1
    except ValueError:  # side data of a kind that PyAV has no name for: then only the rotation can be had
        quarter = round(frame.rotation / 90) % 4
        return ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))[quarter]
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(matrix))
    return a, b, c, d


# --- Square pixels ---

_MOST_OBLONG_PIXEL = 8  # the standards' own pixels stay below 3:1 (H.264, table E-1)


def usable_pixel_aspect(aspect: Fraction | None) -> tuple[Fraction, list[str]]:
    """Width to height of a stored pixel, and a warning where what the file says is absurd and was ignored.

    None or 0 means that the file says nothing: square.
    """
    if not aspect or aspect == 1:
        return Fraction(1), []
    if not Fraction(1, _MOST_OBLONG_PIXEL) <= aspect <= _MOST_OBLONG_PIXEL:
        claim = f"{aspect.numerator}:{aspect.denominator}"
        return Fraction(1), [f"The file claims an impossible pixel shape of {claim}: pixels are taken to be square."]
    return aspect, []


def size_with_square_pixels(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """(width, height) of a stored picture as a player shows it; raises UnreadableVideoError beyond MAX_PIXELS.

    Wide pixels stretch the width, tall ones the height, so that no stored pixel is lost (as mpv does).

    >>> size_with_square_pixels(1440, 1080, Fraction(4, 3))
    (1920, 1080)
    >>> size_with_square_pixels(720, 480, Fraction(8, 9))
    (720, 540)
    """
    if pixel_aspect > 1:
        width = round(width * pixel_aspect)
    else:
        height = round(height / pixel_aspect)
    if width * height > MAX_PIXELS:
        raise UnreadableVideoError(
            f"The picture is {width} × {height} pixels; more than {MAX_PIXELS // 2**20} million are not read.",
            "Make a smaller copy of the video.",
        )
    return width, height


# --- HDR on an ordinary screen ---

_WHITE_NITS = 203.0  # diffuse white of HDR (ITU-R BT.2408): white on an ordinary screen
_PEAK_NITS = 1000.0  # the brightest light kept apart: what most HDR is mastered to
_SCREEN_GAMMA = 2.4  # ITU-R BT.1886
_TABLE_SIZE = 65
_BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)  # ITU-R BT.2087
_BT2020_LUMINANCE = np.array([0.2627, 0.6780, 0.0593])
_Floats = NDArray[np.float64]


def tone_map(pixels: NDArray[np.uint8], transfer: int, is_wide_gamut: bool) -> NDArray[np.uint8]:
    """Turn R′G′B′ [H, W, 3] coded by `transfer` (PQ or HLG) into BT.709 R′G′B′ [H, W, 3].

    is_wide_gamut: the primaries are those of BT.2020 rather than of BT.709. Light up to about 95 cd/m² is kept as it
    is; 203 cd/m² come out at nine tenths of white, 1000 and more as white.
    """
    return np.asarray(Image.fromarray(pixels).filter(_table(transfer, is_wide_gamut)))


@cache
def _table(transfer: int, is_wide_gamut: bool) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _TABLE_SIZE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")  # Pillow wants red to change fastest
    codes = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    light = _pq_to_nits(codes) if transfer == PQ else _hlg_to_nits(codes)
    light = _roll_off(light) / _WHITE_NITS
    if is_wide_gamut:
        light = light @ _BT2020_TO_BT709.T
    shown = light.clip(0, 1) ** (1 / _SCREEN_GAMMA)
    return ImageFilter.Color3DLUT(_TABLE_SIZE, shown.ravel())


def _hlg_to_nits(code: _Floats) -> _Floats:
    """Light (cd/m²) of HLG codes [N, 3] on a screen of 1000 cd/m² (ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    luminance = scene @ _BT2020_LUMINANCE
    return np.asarray(_PEAK_NITS * scene * luminance[:, None] ** 0.2)


def _roll_off(nits: _Floats) -> _Floats:
    """Bring 0 to 1000 cd/m² down to 0 to 203: below the knee as it is, above it a spline (ITU-R BT.2390, 5.4.1)."""
    peak = _nits_to_pq(np.array(_PEAK_NITS))
    target = _nits_to_pq(np.array(_WHITE_NITS)) / peak
    knee = 1.5 * target - 0.5
    level = np.minimum(_nits_to_pq(nits) / peak, 1)
    t = (level - knee) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (-2 * t**3 + 3 * t**2) * target
    return _pq_to_nits(np.where(level < knee, level, spline) * peak)


def _pq_to_nits(code: _Floats) -> _Floats:
    """Light (cd/m²) of a PQ code from 0 to 1 (SMPTE ST 2084, equation 4.1)."""
    power = code ** (32 / 2523)
    return 10000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)


def _nits_to_pq(nits: _Floats) -> _Floats:
    """The PQ code from 0 to 1 of light in cd/m² (SMPTE ST 2084, equation 5.1)."""
    power = (nits / 10000) ** (2610 / 16384)
    return ((107 / 128 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
