"""A decoded frame becomes the picture that a player shows: upright, square pixels, not interlaced, opaque, SDR, RGB."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import av
import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.pixels import Pixels
from sfvqa.video.readers.picture_size import size_with_square_pixels, usable_pixel_aspect
from sfvqa.video.readers.tone_mapping import HLG, PQ, tone_map
from sfvqa.video.readers.video_track import Crop

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
    """Turns the frames of one opened stream into pictures.

    Made for one thread: it keeps FFmpeg's conversion from frame to frame. A change of size or format in mid-stream is
    followed, and one of the shape of pixels (see Handle.decode), unless the container overrules what the bitstream said
    at its start. `crop` is what the container has players cut off; what the bitstream cuts off is off already.
    """

    def __init__(self, stream: VideoStream, crop: Crop) -> None:
        self._reformatter = VideoReformatter()
        self._crop = crop
        self._has_defined_alpha = stream.codec_context.name not in _UNDEFINED_ALPHA
        self._aspect_at_start, self._aspect_warnings = usable_pixel_aspect(stream.sample_aspect_ratio)
        self._follows_bitstream = stream.sample_aspect_ratio == stream.codec_context.sample_aspect_ratio

    def size_shown(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of the picture that `convert` makes; raises UnreadableVideoError if it is too large."""
        crop = self._crop.within(frame.width, frame.height)
        width, height = size_with_square_pixels(
            frame.width - crop.left - crop.right, frame.height - crop.top - crop.bottom, self._aspect_of(frame)
        )
        return (height, width) if Orientation.of(frame).swaps_axes else (width, height)

    def warnings_about(self, frame: VideoFrame) -> list[str]:
        """What the user should know about pictures like this one."""
        warnings = list(self._aspect_warnings)
        if not frame.format.is_rgb and frame.colorspace not in (*_MATRICES, *_UNSPECIFIED_MATRICES):
            warnings.append("The video stores its colours in a way that is not known here: they may be wrong.")
        return warnings

    def convert(self, frame: VideoFrame) -> Pixels:
        """The picture [H, W, 3] uint8 RGB; raises UnreadableVideoError if it is too large or cannot be converted.

        Interlaced frames keep their first field, and of the second what does not comb (yadif, within the frame alone);
        alpha is put over black, unless it is 0 all over in a format that hardly defines it; HDR is tone-mapped (see
        tone_mapping).
        """
        orientation = Orientation.of(frame)
        width, height = self.size_shown(frame)
        if orientation.swaps_axes:
            width, height = height, width
        has_alpha = _has_alpha(frame.format)
        try:
            filters = [*_deinterlacing(frame), *_cropping(self._crop.within(frame.width, frame.height))]
            if filters:
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
            colours = _over_black(colours, pixels[..., 3])
        return orientation.apply(colours)

    def _aspect_of(self, frame: VideoFrame) -> Fraction:
        said = frame.opaque
        if not isinstance(said, list) or not self._follows_bitstream:
            return self._aspect_at_start
        return usable_pixel_aspect(said[0])[0]

    def _to_rgb(self, frame: VideoFrame, width: int, height: int, layout: str) -> Pixels:
        matrix = None if frame.format.is_rgb else _matrix(frame)
        converted = self._reformatter.reformat(
            frame,
            width,
            height,
            layout,
            src_colorspace=matrix,
            threads=1,  # more would only wake idle threads for a millisecond's work
        )
        return converted.to_ndarray().astype(np.uint8, copy=False)


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
        if self.reverses_columns:
            pixels = pixels[:, ::-1]
        if self.reverses_rows:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


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


def _matrix(frame: VideoFrame) -> Colorspace:
    """Which Y′CbCr the frame is in: as it says, else by its size (as mpv), HDR by its standard."""
    matrix = _MATRICES.get(frame.colorspace)
    if matrix is not None:
        return matrix
    if frame.color_trc in (PQ, HLG):
        return Colorspace.BT2020
    is_high_definition = frame.width >= 1280 or frame.height > 576
    return Colorspace.ITU709 if is_high_definition else Colorspace.ITU601


def _has_alpha(layout: VideoFormat) -> bool:
    return layout.has_palette or any(component.is_alpha for component in layout.components)


def _is_limited_grey(frame: VideoFrame) -> bool:
    """FFmpeg takes all grey for full range, whatever its tag says."""
    layout = frame.format
    return (
        frame.color_range == ColorRange.MPEG
        and not layout.is_rgb
        and not layout.has_palette
        and len(layout.components) <= 2
    )


def _deinterlacing(frame: VideoFrame) -> list[tuple[str, str]]:
    """The filter that takes out combs: it interpolates where the fields differ.

    It leaves alone what does not comb, such as progressive pictures that are flagged as interlaced.
    """
    is_interlaced = frame.interlaced_frame and min(frame.width, frame.height) >= _SMALLEST_DEINTERLACED
    return [("yadif", "mode=send_frame:deint=interlaced")] if is_interlaced else []


def _cropping(crop: Crop) -> list[tuple[str, str]]:
    if crop == Crop():
        return []
    size = f"w=iw-{crop.left + crop.right}:h=ih-{crop.top + crop.bottom}"
    return [("crop", f"{size}:x={crop.left}:y={crop.top}:exact=1")]


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


def _over_black(colours: Pixels, alpha: Pixels) -> Pixels:
    picture = Image.new("RGB", (alpha.shape[1], alpha.shape[0]))
    picture.paste(Image.fromarray(np.ascontiguousarray(colours)), mask=Image.fromarray(np.ascontiguousarray(alpha)))
    return np.asarray(picture)
