"""The reference's resizing: shortest edge to N pixels with Pillow's bicubic filter; cropping is preprocessing's."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sfvqa.errors import UnreadableVideoError

# The centre crop looks at one square of the picture; beyond this the resized frames would be hundreds of times that.
MAX_ASPECT_RATIO = 16


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
            "Crop the video to the part that matters.",
        )
    new_long = int(shortest_edge * long / short)
    return (shortest_edge, new_long) if width <= height else (new_long, shortest_edge)


def resize_to(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resize pixels [H, W, 3] to [height, width, 3] with Pillow's bicubic (antialiased when it shrinks)."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))


def resize_shortest_edge(pixels: NDArray[np.uint8], shortest_edge: int) -> NDArray[np.uint8]:
    """Resize pixels [H, W, 3] so that the shorter edge has `shortest_edge` pixels."""
    height, width = pixels.shape[:2]
    return resize_to(pixels, *size_for_shortest_edge(width, height, shortest_edge))
