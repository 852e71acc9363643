"""Words on a picture: Pillow's built-in font, text in the letters it has, lines that fit. Knows nothing of frames."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from PIL import ImageDraw, ImageFont

MARGIN, LINE_GAP = 16, 4
TEXT, DIM_TEXT = (236, 236, 238), (160, 160, 166)

_TITLE_SIZE, _FACTS_SIZE, _BELOW_HEADER = 20, 14, 10

# Pillow's built-in font knows ASCII and hardly more; accents are dropped, the rest becomes a question mark.
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "−": "-"})
_ALSO_IN_FONT = "…"


@dataclass(frozen=True)
class Header:
    """The lines above the frames, each with its font and colour."""

    lines: tuple[tuple[str, int, tuple[int, int, int]], ...]

    @classmethod
    def of(cls, titles: Sequence[str], facts: str, width: int, *, title_lines: int = 1) -> "Header":
        """Titles over at most `title_lines` each, shortened where these are too few; facts as many as they need."""
        letters = font(_TITLE_SIZE)
        names = [line for title in titles for line in fit_lines(drawable(title), letters, width, title_lines)]
        lines = wrap(drawable(facts), font(_FACTS_SIZE), width)
        return cls((*((name, _TITLE_SIZE, TEXT) for name in names), *((line, _FACTS_SIZE, DIM_TEXT) for line in lines)))

    @property
    def height(self) -> int:
        """With the room that sets it apart from what comes below."""
        return sum(line_height(size) for _, size, _ in self.lines) + _BELOW_HEADER

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        """Write it at the top left."""
        top = MARGIN
        for text, size, colour in self.lines:
            draw.text((MARGIN, top), text, fill=colour, font=font(size))
            top += line_height(size)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font at this size, in pixels."""
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded


def line_height(size: int) -> int:
    """From one line to the next."""
    return size + 2 * LINE_GAP


def drawable(text: str) -> str:
    """The text in letters that the font has.

    >>> drawable("Café 2×2 — 中\\n")
    'Cafe 2x2 - ??'
    """
    spelled = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    kept = (letter for letter in spelled if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in _ALSO_IN_FONT else "?" for letter in kept)


def shorten(text: str, letters: ImageFont.FreeTypeFont, width: int) -> str:
    """Take letters out of the middle until the text fits: what ends a file name tells as much as what begins it."""
    if letters.getlength(text) <= width:
        return text

    def cut(kept: int) -> str:
        return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]

    return cut(bisect_right(range(len(text)), width, key=lambda kept: math.ceil(letters.getlength(cut(kept)))) - 1)


def fit_lines(text: str, letters: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break the text into at most so many lines; the last is shortened in its middle where more would be needed."""
    lines = wrap(text, letters, width) if most > 1 else [text]
    return [*lines[: most - 1], *([shorten(" ".join(lines[most - 1 :]), letters, width)] if lines[most - 1 :] else [])]


def wrap(text: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break the text at spaces into lines that fit; a longer word stands alone, shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and letters.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(shorten(word, letters, width))
    return lines
