"""Some frames of a video as one JPEG, small and in rows, for a page to cut up; read in a process of its own."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Pixels, VideoInfo
from sfvqa.video.fitting import FitWithin, between_bars
from sfvqa.video.readers import ReadOptions, open_video
from sfvqa.video.reading import choose_unread
from sfvqa.video.sampling import SamplingOptions

MOST_FRAMES = 256
LARGEST_SIDE = 1280
_MOST_PIXELS = 4_000_000  # of all frames together
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Filmstrip:
    """The frames at `indices`, in rows of `columns` in the picture `jpeg`; those at `missing` could not be read."""

    video: VideoInfo
    indices: tuple[int, ...]
    timestamps_seconds: tuple[float, ...]
    missing: tuple[int, ...]
    columns: int
    jpeg: bytes


def read_filmstrip(path: Path, wanted: Sequence[int] | int, side: int, reading: ReadOptions) -> Filmstrip:
    """Read frames by their places in the file, or as many as `wanted`, evenly spread, each within a square of `side`.

    At most MOST_FRAMES; many of them come out smaller. Raises VideoError.
    """
    with open_video(path, reading) as reader:
        indices = (
            choose_unread(reader, SamplingOptions(num_frames=wanted)).indices
            if isinstance(wanted, int)
            else tuple(sorted(set(wanted)))
        )
        if indices[-1] >= len(reader.timestamps_seconds):
            raise UnreadableVideoError(f"“{path}” has only {len(reader.timestamps_seconds)} frames.", "Ask again.")
        side = min(side, math.isqrt(_MOST_PIXELS // len(indices)))
        pictures = {frame.index: frame.pixels for frame in reader.read(indices, FitWithin(side, side))}
        if not pictures:
            raise UnreadableVideoError(f"None of these frames of “{path}” can be read.", "Convert the video.")
        columns = math.ceil(math.sqrt(len(indices)))
        return Filmstrip(
            video=reader.info,
            indices=indices,
            timestamps_seconds=tuple(reader.timestamps_seconds[index] for index in indices),
            missing=tuple(index for index in indices if index not in pictures),
            columns=columns,
            jpeg=_in_rows([pictures.get(index) for index in indices], columns),
        )


def _in_rows(pictures: Sequence[Pixels | None], columns: int) -> bytes:
    """A picture [H, W, 3] each, all in the shape of the first; black where there is none."""
    height, width = next(pixels for pixels in pictures if pixels is not None).shape[:2]
    sheet = Image.new("RGB", (columns * width, math.ceil(len(pictures) / columns) * height))
    for place, pixels in enumerate(pictures):
        if pixels is not None:
            row, column = divmod(place, columns)
            sheet.paste(Image.fromarray(between_bars(pixels, width, height)), (column * width, row * height))
    encoded = io.BytesIO()
    sheet.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()
