"""How large a stored picture is when it is shown with square pixels, and how large it may be: arithmetic only."""

from fractions import Fraction

from sfvqa.errors import UnreadableVideoError

MAX_PIXELS = 2**26
"""Pixels of the largest picture that is converted: 8192 × 8192, 200 MB as RGB."""

_MOST_OBLONG_PIXEL = 8  # the standards' own pixels stay below 3:1 (H.264, table E-1)


def usable_pixel_aspect(aspect: Fraction | None) -> tuple[Fraction, list[str]]:
    """Width to height of a stored pixel, and a warning where what the file says is absurd and was ignored.

    None or 0 means that the file says nothing: square.
    """
    if not aspect or aspect == 1:
        return Fraction(1), []
    if not Fraction(1, _MOST_OBLONG_PIXEL) <= aspect <= _MOST_OBLONG_PIXEL:
        claim = f"{aspect.numerator}:{aspect.denominator}"
        return Fraction(1), [f"The file claims pixels of {claim}, which cannot be: they were taken to be square."]
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
