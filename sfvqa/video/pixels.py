"""What a picture is, and a part of one."""

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""One picture [H, W, 3], uint8 RGB."""

Box = tuple[float, float, float, float]
"""A part of a picture in its pixels: left, upper, right, lower."""
