"""Sampled frames become one picture for a person: times under them, what the centre crop cuts dark. Opens no file."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfvqa.video.fitting import CropMode, FitWithin
from sfvqa.video.pixels import Pixels
from sfvqa.video.sampling import format_time

MAX_CELLS = 4096

_PICTURE_WIDTH, _PICTURE_HEIGHT, _SMALLEST_WIDTH = 320, 240, 64
_PICTURES_PIXELS = 9_000_000  # all pictures of a sheet together, where that leaves each its smallest width
_SHEET_ASPECT = 16 / 9
_NARROWEST_SHEET = 480  # so that there is room for the title
_MARGIN, _GAP, _LINE_GAP = 16, 10, 4

_BACKGROUND, _TEXT, _DIM_TEXT = (28, 28, 30), (236, 236, 238), (160, 160, 166)
_KEPT_OUTLINE = (255, 204, 64)
_GAP_FILL, _GAP_INK = (56, 36, 36), (238, 128, 116)
_CUT_BRIGHTNESS = 0.3

# Pillow's built-in font knows ASCII and hardly more; accents are dropped, the rest becomes a question mark.
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "−": "-"})
_ALSO_IN_FONT = "…"


@dataclass(frozen=True, eq=False)
class Cell:
    """One place on the sheet: a frame as a small picture [h, w, 3] uint8 RGB, None where the frame is missing."""

    index: int
    timestamp_seconds: float
    pixels: Pixels | None


def fit_for_sheet(num_frames: int) -> FitWithin:
    """How frames are to be fitted for a sheet of that many: the more, the smaller, at most 320 × 240 pixels.

    >>> fit_for_sheet(64), fit_for_sheet(1000)
    (FitWithin(width=320, height=240), FitWithin(width=109, height=81))
    """
    width = math.isqrt(int(_PICTURES_PIXELS / num_frames * _PICTURE_WIDTH / _PICTURE_HEIGHT))
    width = min(max(width, _SMALLEST_WIDTH), _PICTURE_WIDTH)
    return FitWithin(width, width * _PICTURE_HEIGHT // _PICTURE_WIDTH)


def draw_contact_sheet(cells: Sequence[Cell], *, title: str, facts: str, crop: CropMode) -> Image.Image:
    """Draw the frames in order, each over its time and index, under a title and a line of facts.

    With CENTER what the crop cuts away is darkened and what the model sees is outlined; otherwise it sees all of it.
    Raises ValueError for more than MAX_CELLS cells, or without any picture among them.
    """
    if len(cells) > MAX_CELLS:
        raise ValueError(f"a sheet holds {MAX_CELLS} frames at most, got {len(cells)}")
    picture = next((cell.pixels for cell in cells if cell.pixels is not None), None)
    if picture is None:
        raise ValueError("a sheet needs at least one picture")
    grid = _Grid.of(cells, width=picture.shape[1], height=picture.shape[0])
    width = max(_NARROWEST_SHEET, grid.width + 2 * _MARGIN)
    header = _Header.of(title, facts, width - 2 * _MARGIN)
    sheet = Image.new("RGB", (width, header.height + grid.height + 2 * _MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    header.draw(draw)
    for place, cell in enumerate(cells):
        left, top = grid.corner(place)
        _draw_cell(sheet, draw, cell, grid, crop, (left + _MARGIN, top + _MARGIN + header.height))
    return sheet


@dataclass(frozen=True)
class _Header:
    """The lines above the grid, each with its font and colour."""

    lines: tuple[tuple[str, int, tuple[int, int, int]], ...]

    @classmethod
    def of(cls, title: str, facts: str, width: int) -> "_Header":
        name = _shorten(_drawable(title), _font(20), width)
        lines = _wrap(_drawable(facts), _font(14), width)
        return cls(((name, 20, _TEXT), *((line, 14, _DIM_TEXT) for line in lines)))

    @property
    def height(self) -> int:
        return sum(_line_height(size) for _, size, _ in self.lines) + _GAP

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        top = _MARGIN
        for text, size, colour in self.lines:
            draw.text((_MARGIN, top), text, fill=colour, font=_font(size))
            top += _line_height(size)


@dataclass(frozen=True)
class _Grid:
    """Where the cells go: pictures of one size, a caption of one or two lines under each."""

    columns: int
    rows: int
    picture_width: int
    picture_height: int
    cell_width: int
    font_size: int
    caption_lines: int

    @classmethod
    def of(cls, cells: Sequence[Cell], *, width: int, height: int) -> "_Grid":
        font_size = 14 if max(width, height) >= 200 else 12
        font = _font(font_size)
        times = max(font.getlength(format_time(cell.timestamp_seconds)) for cell in cells)
        indices = max(font.getlength(f"#{cell.index}") for cell in cells)
        caption_lines = 1 if times + _GAP + indices <= width else 2
        cell_width = max(width, math.ceil(max(times, indices)))
        cell_height = height + caption_lines * _line_height(font_size)
        columns = _choose_columns(len(cells), (cell_width + _GAP) / (cell_height + _GAP))
        return cls(columns, -(-len(cells) // columns), width, height, cell_width, font_size, caption_lines)

    @property
    def cell_height(self) -> int:
        return self.picture_height + self.caption_lines * _line_height(self.font_size)

    @property
    def width(self) -> int:
        return self.columns * (self.cell_width + _GAP) - _GAP

    @property
    def height(self) -> int:
        return self.rows * (self.cell_height + _GAP) - _GAP

    def corner(self, place: int) -> tuple[int, int]:
        """Left and top of a cell, from the corner of the grid."""
        row, column = divmod(place, self.columns)
        return column * (self.cell_width + _GAP), row * (self.cell_height + _GAP)


def _choose_columns(num_cells: int, cell_aspect: float) -> int:
    """As many columns as make the sheet about as wide as a screen, or a few off where that leaves fewer places empty.

    >>> _choose_columns(64, 1.6), _choose_columns(7, 1.6), _choose_columns(1, 1.6)
    (8, 3, 1)
    """
    ideal = math.sqrt(num_cells * _SHEET_ASPECT / cell_aspect)

    def flaw(columns: int) -> float:
        empty = -num_cells % columns
        return empty / num_cells + abs(math.log(columns / ideal))

    return min(range(1, num_cells + 1), key=flaw)


def _draw_cell(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, grid: _Grid, crop: CropMode, corner: tuple[int, int]
) -> None:
    left, top = corner
    inset = left + (grid.cell_width - grid.picture_width) // 2
    if cell.pixels is None:
        _draw_gap(draw, (inset, top, inset + grid.picture_width - 1, top + grid.picture_height - 1))
    else:
        sheet.paste(Image.fromarray(_mark_cut(cell.pixels) if crop is CropMode.CENTER else cell.pixels), (inset, top))
    font, time, index = _font(grid.font_size), format_time(cell.timestamp_seconds), f"#{cell.index}"
    below = top + grid.picture_height + _LINE_GAP
    colour = _TEXT if cell.pixels is not None else _GAP_INK
    if grid.caption_lines == 1:
        draw.text((inset, below), time, fill=colour, font=font)
        right = inset + grid.picture_width - font.getlength(index)
        draw.text((right, below), index, fill=_DIM_TEXT, font=font)
    else:
        draw.text((left, below), time, fill=colour, font=font)
        draw.text((left, below + _line_height(grid.font_size)), index, fill=_DIM_TEXT, font=font)


def _mark_cut(pixels: Pixels) -> Pixels:
    """Darken what the centre crop cuts away, and outline the square that is left; a square picture stays as it is."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    if height == width:
        return pixels
    top, left = (height - side) // 2, (width - side) // 2
    marked = (pixels * _CUT_BRIGHTNESS).astype(np.uint8)
    marked[top : top + side, left : left + side] = _KEPT_OUTLINE
    inside = (slice(top + 1, top + side - 1), slice(left + 1, left + side - 1))
    marked[inside] = pixels[inside]
    return marked


def _draw_gap(draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = box
    draw.rectangle(box, fill=_GAP_FILL, outline=_GAP_INK)
    draw.line((left, top, right, bottom), fill=_GAP_INK)
    draw.line((left, bottom, right, top), fill=_GAP_INK)
    middle, font = ((left + right) / 2, (top + bottom) / 2), _font(12)
    draw.rectangle(draw.textbbox(middle, " missing ", font=font, anchor="mm"), fill=_GAP_FILL)
    draw.text(middle, "missing", fill=_GAP_INK, font=font, anchor="mm")


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


def _line_height(size: int) -> int:
    return size + 2 * _LINE_GAP


def _drawable(text: str) -> str:
    """The text in letters that the font has.

    >>> _drawable("Café 2×2 — 中\\n")
    'Cafe 2x2 - ??'
    """
    letters = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    kept = (letter for letter in letters if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in _ALSO_IN_FONT else "?" for letter in kept)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Take letters out of the middle until the text fits: what ends a file name tells as much as what begins it."""
    if font.getlength(text) <= width:
        return text

    def cut(kept: int) -> str:
        return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]

    return cut(bisect_right(range(len(text)), width, key=lambda kept: math.ceil(font.getlength(cut(kept)))) - 1)


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break the text at spaces into lines that fit; a longer word stands alone, shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_shorten(word, font, width))
    return lines
