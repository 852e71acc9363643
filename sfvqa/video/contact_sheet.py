"""Sampled frames become one picture for a person: a contact sheet, or a filmstrip of what an answer looked at."""

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sfvqa.video.clip import Clip, Pixels
from sfvqa.video.fitting import CropMode, FitWithin
from sfvqa.video.sampling import format_time

_Colour = tuple[int, int, int]
MAX_CELLS = 4096
_MARGIN, _LINE_GAP = 16, 4
_GAP = 10
_PICTURE_WIDTH, _PICTURE_HEIGHT, _SMALLEST_WIDTH = 320, 240, 64
_PICTURES_PIXELS = 9_000_000  # all pictures of a sheet together, where that leaves each its smallest width
_SHEET_ASPECT = 16 / 9
_NARROWEST_SHEET = 480  # so that there is room for the title
_FILMSTRIP_WIDTH, _FILMSTRIP_PIXELS = 160, 1_200_000  # smaller than on a sheet: here the bars are what is looked at
_BAR_HEIGHT, _PERCENT_SIZE, _FILMSTRIP_TITLE_LINES = 48, 12, 3
_TITLE_SIZE, _FACTS_SIZE, _BELOW_HEADER = 20, 14, 10
_NEARLY, _WELL_ABOVE = 0.7, 1.5  # of the strongest weight; of an even share

_BACKGROUND = (28, 28, 30)
_TEXT, _DIM_TEXT = (236, 236, 238), (160, 160, 166)
_BAR, _BAR_GROUND, _STRONGEST = (96, 148, 214), (40, 40, 44), (255, 132, 92)
_KEPT_OUTLINE = (255, 204, 64)
_CUT_BRIGHTNESS = 0.3
_GAP_FILL, _GAP_INK = (56, 36, 36), (238, 128, 116)

# Pillow's built-in font knows ASCII and hardly more; accents are dropped, the rest becomes a question mark.
_SPELLED = str.maketrans({"×": "x", "–": "-", "—": "-", "“": '"', "”": '"', "‘": "'", "’": "'", "−": "-"})
_ALSO_IN_FONT = "…"


@dataclass(frozen=True, eq=False)
class Cell:
    """One place on the sheet: a frame as a small picture [h, w, 3] uint8 RGB, None where the frame is missing."""

    index: int
    timestamp_seconds: float
    pixels: Pixels | None


def cells_of(clip: Clip) -> list[Cell]:
    """A cell for each frame of a clip, and for each that is missing, in order."""
    frames = zip(clip.indices, clip.timestamps_seconds, clip.frames, strict=True)
    cells = [Cell(*frame) for frame in frames]
    cells += [Cell(gap.index, gap.timestamp_seconds, None) for gap in clip.missing]
    return sorted(cells, key=lambda cell: cell.index)


def fit_for_sheet(num_frames: int, *, with_bars: bool = False) -> FitWithin:
    """How to fit frames for a sheet of that many: the more, the smaller, at most 320 × 240 pixels (160 × 120).

    >>> fit_for_sheet(64), fit_for_sheet(1000)
    (FitWithin(width=320, height=240), FitWithin(width=109, height=81))
    """
    most, all_pixels = (_FILMSTRIP_WIDTH, _FILMSTRIP_PIXELS) if with_bars else (_PICTURE_WIDTH, _PICTURES_PIXELS)
    width = math.isqrt(int(all_pixels / num_frames * _PICTURE_WIDTH / _PICTURE_HEIGHT))
    width = min(max(width, _SMALLEST_WIDTH), most)
    return FitWithin(width, width * _PICTURE_HEIGHT // _PICTURE_WIDTH)


def draw_contact_sheet(
    cells: Sequence[Cell],
    *,
    titles: Sequence[str],
    facts: str,
    crop: CropMode,
    weights: Sequence[float] | None = None,
) -> Image.Image:
    """Draw the frames in order, each over its time and index, under titles and facts.

    With CENTER what the crop cuts away is darkened and what the model sees is outlined. `weights`, shares of 1, make it
    a filmstrip: a bar over each frame, as high as its weight beside the strongest, with the percent over it; the
    strongest is marked, and so is each that is nearly as high and well above an even share. Raises ValueError for more
    than MAX_CELLS cells, without any picture among them, and unless there is a weight a frame.
    """
    if weights is not None and len(weights) != len(cells):
        raise ValueError(f"{len(cells)} frames need as many weights, got {len(weights)}")
    if len(cells) > MAX_CELLS:
        raise ValueError(f"a sheet holds {MAX_CELLS} frames at most, got {len(cells)}")
    picture = next((cell.pixels for cell in cells if cell.pixels is not None), None)
    if picture is None:
        raise ValueError("a sheet needs at least one picture")
    tiles = _Tiles.of(cells, picture, crop, has_bars=weights is not None)
    columns = _choose_columns(len(cells), tiles.width / tiles.height)
    width = max(_NARROWEST_SHEET, columns * tiles.width - _GAP + 2 * _MARGIN)
    header = _header(titles, facts, width - 2 * _MARGIN, 1 if weights is None else _FILMSTRIP_TITLE_LINES)
    left = _MARGIN - _GAP // 2
    top = left + sum(_line_height(size) for _, size, _ in header) + _BELOW_HEADER
    sheet = Image.new("RGB", (width, top + -(-len(cells) // columns) * tiles.height + left), _BACKGROUND)
    line_top = _MARGIN
    for text, size, colour in header:
        ImageDraw.Draw(sheet).text((_MARGIN, line_top), text, fill=colour, font=font(size))
        line_top += _line_height(size)
    peaks = _peaks(weights or ())
    for place, cell in enumerate(cells):
        row, column = divmod(place, columns)
        bar = None if weights is None else _Bar(weights[place], max(weights), is_peak=place in peaks)
        sheet.paste(tiles.draw(cell, bar), (left + column * tiles.width, top + row * tiles.height))
    return sheet


@dataclass(frozen=True)
class _Bar:
    """What stands over a frame of a filmstrip: its weight, beside the strongest."""

    weight: float
    most: float
    is_peak: bool


@dataclass(frozen=True)
class _Tiles:
    """How cells are laid out, all in one size and with half of the gap around each: a picture over its caption."""

    width: int
    height: int
    picture: tuple[int, int, int, int]
    letters: ImageFont.FreeTypeFont
    crop: CropMode

    @classmethod
    def of(cls, cells: Sequence[Cell], picture: Pixels, crop: CropMode, *, has_bars: bool) -> Self:
        height, width = picture.shape[:2]
        font_size = 14 if max(width, height) >= 200 else 12
        letters = font(font_size)
        times = max(letters.getlength(format_time(cell.timestamp_seconds)) for cell in cells)
        indices = max(letters.getlength(f"#{cell.index}") for cell in cells)
        tile_width = max(width, math.ceil(times + _GAP + indices)) + _GAP
        above = _line_height(_PERCENT_SIZE) + _BAR_HEIGHT + _LINE_GAP if has_bars else 0
        tile_height = above + height + _line_height(font_size) + _GAP
        left, top = (tile_width - width) // 2, _GAP // 2 + above
        return cls(tile_width, tile_height, (left, top, left + width - 1, top + height - 1), letters, crop)

    def draw(self, cell: Cell, bar: _Bar | None) -> Image.Image:
        tile = Image.new("RGB", (self.width, self.height), _BACKGROUND)
        draw = ImageDraw.Draw(tile)
        if cell.pixels is None:
            _draw_gap(draw, self.picture)
        else:
            pixels = _mark_cut(cell.pixels) if self.crop is CropMode.CENTER else cell.pixels
            tile.paste(Image.fromarray(pixels), self.picture[:2])
        if bar is not None:
            _draw_bar(draw, bar, self.picture)
        below, colour = self.picture[3] + 1 + _LINE_GAP, _GAP_INK if cell.pixels is None else _TEXT
        draw.text((_GAP // 2, below), format_time(cell.timestamp_seconds), fill=colour, font=self.letters)
        right = self.width - _GAP // 2
        draw.text((right, below), f"#{cell.index}", fill=_DIM_TEXT, font=self.letters, anchor="ra")
        return tile


def _choose_columns(num_cells: int, cell_aspect: float) -> int:
    """As many columns as make the sheet about as wide as a screen, or a few off where that leaves fewer places empty.

    >>> _choose_columns(64, 1.6), _choose_columns(7, 1.6), _choose_columns(1, 1.6)
    (8, 3, 1)
    """
    ideal = math.sqrt(num_cells * _SHEET_ASPECT / cell_aspect)

    # A column that leaves places empty, and one off the ideal, both count in proportion.
    return min(
        range(1, num_cells + 1),
        key=lambda columns: -num_cells % columns / num_cells + abs(math.log(columns / ideal)),
    )


def _mark_cut(pixels: Pixels) -> Pixels:
    """Darken what the centre crop cuts away, and outline the square that is left."""
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
    middle, letters = ((left + right) / 2, (top + bottom) / 2), font(12)
    draw.rectangle(draw.textbbox(middle, " missing ", font=letters, anchor="mm"), fill=_GAP_FILL)
    draw.text(middle, "missing", fill=_GAP_INK, font=letters, anchor="mm")


def _draw_bar(draw: ImageDraw.ImageDraw, bar: _Bar, picture: tuple[int, int, int, int]) -> None:
    """A bar that stands on the picture, its percent over it; a peak in another colour, its picture framed."""
    left, foot, right = picture[0], picture[1] - _LINE_GAP, picture[2]
    colour = _STRONGEST if bar.is_peak else _BAR
    top = foot - max(1, round(_BAR_HEIGHT * bar.weight / bar.most)) if bar.most > 0 else foot
    draw.rectangle((left, foot - _BAR_HEIGHT, right, foot), fill=_BAR_GROUND)
    draw.rectangle((left, top, right, foot), fill=colour)
    percent = f"{100 * bar.weight:.1f} %"
    draw.text(((left + right) / 2, top - 3), percent, fill=colour, font=font(_PERCENT_SIZE), anchor="mb")
    if bar.is_peak:
        draw.rectangle((left - 2, picture[1] - 2, right + 2, picture[3] + 2), outline=_STRONGEST, width=2)


def _peaks(weights: Sequence[float]) -> set[int]:
    """The places of the weights that stand out: the strongest, and those nearly as high and well above an even share.

    >>> sorted(_peaks([0.03, 0.4, 0.04, 0.03, 0.03, 0.35, 0.06, 0.06]))
    [1, 5]
    """
    most = max(weights, default=0.0)
    least = max(_NEARLY * most, _WELL_ABOVE / len(weights)) if weights else 0.0
    return {place for place, weight in enumerate(weights) if weight == most or weight >= least}


# --- Lettering ---


def _header(titles: Sequence[str], facts: str, width: int, title_lines: int) -> list[tuple[str, int, _Colour]]:
    """Titles over at most `title_lines` each, facts over as many as they need; each with its size and colour."""
    letters = font(_TITLE_SIZE)
    names = [line for title in titles for line in fit_lines(_drawable(title), letters, width, title_lines)]
    lines = _wrap(_drawable(facts), font(_FACTS_SIZE), width)
    return [*((name, _TITLE_SIZE, _TEXT) for name in names), *((line, _FACTS_SIZE, _DIM_TEXT) for line in lines)]


def fit_lines(text: str, letters: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break the text into at most so many lines; the last is shortened in its middle where more would be needed."""
    lines = _wrap(text, letters, width) if most > 1 else [text]
    return [*lines[: most - 1], *([_shorten(" ".join(lines[most - 1 :]), letters, width)] if lines[most - 1 :] else [])]


def _wrap(text: str, letters: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Break the text at spaces into lines that fit; a longer word stands alone, shortened."""
    lines: list[str] = []
    for word in text.split():
        if lines and letters.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_shorten(word, letters, width))
    return lines


def _shorten(text: str, letters: ImageFont.FreeTypeFont, width: int) -> str:
    """Take letters out of the middle until the text fits: what ends a file name tells as much as what begins it."""
    if letters.getlength(text) <= width:
        return text

    def cut(kept: int) -> str:
        return text[: (kept + 1) // 2] + "…" + text[len(text) - kept // 2 :]

    return cut(bisect_right(range(len(text)), width, key=lambda kept: math.ceil(letters.getlength(cut(kept)))) - 1)


def _drawable(text: str) -> str:
    """The text in letters that the font has.

    >>> _drawable("Café 2×2 — 中\\n")
    'Cafe 2x2 - ??'
    """
    spelled = unicodedata.normalize("NFKD", text.translate(_SPELLED))
    kept = (letter for letter in spelled if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" or letter in _ALSO_IN_FONT else "?" for letter in kept)


def _line_height(size: int) -> int:
    return size + 2 * _LINE_GAP


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    loaded = ImageFont.load_default(size)
    assert isinstance(loaded, ImageFont.FreeTypeFont)
    return loaded
