"""A frame of any size becomes what is looked at, resized with the reference's filter: Pillow's bicubic."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.clip import Box, Pixels

MAX_ASPECT_RATIO = 16  # of a centre crop: beyond, its square is next to nothing of the picture


Fit = Callable[[Pixels], Pixels]
"""What is done to each frame [H, W, 3] as soon as it is read; to be pickled: reading may happen in another process."""


class CropMode(StrEnum):
    """How a picture that is no square becomes one."""

    CENTER = "center"
    """Its middle square, as in the reference's training: of 16:9, 44 % is cut off."""
    PAD = "pad"
    """All of it, between black bars."""
    SQUASH = "squash"
    """All of it, with its proportions lost."""

    def lost_share(self, width: int, height: int) -> float:
        """The share of a picture of this size that the model does not see.

        >>> round(CropMode.CENTER.lost_share(1920, 1080), 4)
        0.4375
        """
        return 1 - min(width, height) / max(width, height) if self is CropMode.CENTER else 0.0


@dataclass(frozen=True)
class FitSquare:
    """Resize to `size` × `size` pixels; CENTER gives CLIPImageProcessor's pixels, bit for bit.

    CENTER: the shorter edge becomes `size`, the longer `int(size · long / short)`, then the middle is cropped. Raises
    UnreadableVideoError for a sliver of a picture.
    """

    size: int
    crop: CropMode = CropMode.CENTER

    def __call__(self, pixels: Pixels) -> Pixels:
        if pixels.shape[:2] == (self.size, self.size):
            return pixels
        match self.crop:
            case CropMode.CENTER:
                return self._centre(pixels)
            case CropMode.PAD:
                return between_bars(pixels, self.size, self.size)
            case CropMode.SQUASH:
                return resize_to(pixels, self.size, self.size)

    def _centre(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        new_width, new_height = size_for_shortest_edge(width, height, self.size)
        left, top = (new_width - self.size) // 2, (new_height - self.size) // 2
        edges = [side * Fraction(width, new_width) for side in (left, left + self.size)]
        # What is cropped away at the sides need not be computed, where Pillow's single-precision box can say where that
        # is. Above and below it must be: without it Pillow takes its two passes in the other order, and rounds so.
        if width > height and all(Fraction(float(np.float32(float(edge)))) == edge for edge in edges):
            return resize_to(pixels, self.size, self.size, (float(edges[0]), 0, float(edges[1]), height))
        return resize_to(pixels, new_width, new_height)[top : top + self.size, left : left + self.size]


@dataclass(frozen=True)
class FitThroughLongestEdge:
    """Resize the longest edge to `longest_edge` pixels, the other in proportion and even; then squash to a square.

    Both with Lanczos, as SmolVLMVideoProcessor of transformers does.
    """

    size: int
    longest_edge: int

    def __call__(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        if (height, width) == (self.size, self.size):
            return pixels
        longest = self.longest_edge
        if width >= height:
            new_width, new_height = longest, max(1, _even(int(longest / (width / height))))
        else:
            new_width, new_height = max(1, _even(int(longest * (width / height)))), longest
        picture = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS)
        return np.asarray(picture.resize((self.size, self.size), Image.Resampling.LANCZOS))


def _even(number: int) -> int:
    return number + number % 2


@dataclass(frozen=True)
class FitWithin:
    """Resize to the largest size of the same proportions within `width` × `height` pixels, at least one pixel."""

    width: int
    height: int

    def __call__(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        scale = min(self.width / width, self.height / height)
        return resize_to(pixels, max(1, round(width * scale)), max(1, round(height * scale)))


def size_for_shortest_edge(width: int, height: int, shortest_edge: int) -> tuple[int, int]:
    """(width, height) with the shorter one `shortest_edge` pixels and the longer one `int(shortest_edge·long/short)`.

    Source: CLIPImageProcessor, as the reference uses it. Raises UnreadableVideoError for a sliver of a picture.

    >>> size_for_shortest_edge(1920, 1080, 576)
    (1024, 576)
    """
    short, long = min(width, height), max(width, height)
    if long > MAX_ASPECT_RATIO * short:
        raise UnreadableVideoError(
            f"The picture is {width} × {height} pixels, more than {MAX_ASPECT_RATIO} times as long as wide.",
            "Look at all of it with `--crop pad`, or crop the video to the part that matters.",
        )
    new_long = int(shortest_edge * long / short)
    return (shortest_edge, new_long) if width <= height else (new_long, shortest_edge)


def resize_to(pixels: Pixels, width: int, height: int, box: Box | None = None) -> Pixels:
    """Resize pixels [H, W, 3], or a box of them, to [height, width, 3] with Pillow's bicubic, antialiased."""
    if pixels.shape[:2] == (height, width) and box is None:
        return pixels
    from sfvqa.video.enlarging import enlarge  # OpenCV is imported where something is resized, not at the start

    if (enlarged := enlarge(pixels, width, height, box)) is not None:
        return enlarged
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box))


def between_bars(pixels: Pixels, width: int, height: int) -> Pixels:
    """All of the picture [H, W, 3] in [height, width, 3], with its proportions: what is left over is black."""
    if pixels.shape[:2] == (height, width):
        return pixels
    inside = FitWithin(width, height)(pixels)
    picture = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inside.shape[0]) // 2, (width - inside.shape[1]) // 2
    picture[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return picture
