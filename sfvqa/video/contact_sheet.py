"""Sampled frames become one picture for a person: times under them, what the centre crop cuts dark, and over them, on a
filmstrip, how much an answer looked at each. Opens no file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from sfvqa.video.fitting import CropMode, FitWithin
from sfvqa.video.lettering import DIM_TEXT, LINE_GAP, MARGIN, TEXT, Header, font, line_height
from sfvqa.video.pixels import Pixels
from sfvqa.video.sampling import format_time

MAX_CELLS = 4096

_PICTURE_WIDTH, _PICTURE_HEIGHT, _SMALLEST_WIDTH = 320, 240, 64
_PICTURES_PIXELS = 9_000_000  # all pictures of a sheet together, where that leaves each its smallest width
_SHEET_ASPECT = 16 / 9
_NARROWEST_SHEET = 480  # so that there is room for the title
_GAP = 10
_FILMSTRIP_WIDTH, _FILMSTRIP_PIXELS = 160, 1_200_000  # smaller than on a sheet: here the bars are what is looked at
_BAR_HEIGHT, _PERCENT_SIZE, _FILMSTRIP_TITLE_LINES = 48, 12, 3

_BACKGROUND = (28, 28, 30)
_BAR, _BAR_GROUND, _STRONGEST = (96, 148, 214), (40, 40, 44), (255, 132, 92)
_KEPT_OUTLINE = (255, 204, 64)
_GAP_FILL, _GAP_INK = (56, 36, 36), (238, 128, 116)
_CUT_BRIGHTNESS = 0.3
_NEARLY, _WELL_ABOVE = 0.7, 1.5  # of the strongest weight; of an even share


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
    return _fit(num_frames, _PICTURE_WIDTH, _PICTURES_PIXELS)


def fit_for_filmstrip(num_frames: int) -> FitWithin:
    """The same for a filmstrip, at most 160 × 120 pixels.

    >>> fit_for_filmstrip(32), fit_for_filmstrip(128)
    (FitWithin(width=160, height=120), FitWithin(width=111, height=83))
    """
    return _fit(num_frames, _FILMSTRIP_WIDTH, _FILMSTRIP_PIXELS)


def _fit(num_frames: int, most: int, all_pixels: int) -> FitWithin:
    width = math.isqrt(int(all_pixels / num_frames * _PICTURE_WIDTH / _PICTURE_HEIGHT))
    width = min(max(width, _SMALLEST_WIDTH), most)
    return FitWithin(width, width * _PICTURE_HEIGHT // _PICTURE_WIDTH)


def draw_contact_sheet(cells: Sequence[Cell], *, title: str, facts: str, crop: CropMode) -> Image.Image:
    """Draw the frames in order, each over its time and index, under a title and a line of facts.

    With CENTER what the crop cuts away is darkened and what the model sees is outlined; otherwise it sees all of it.
    Raises ValueError for more than MAX_CELLS cells, or without any picture among them.
    """
    return _draw(cells, None, [title], facts, crop)


def draw_filmstrip(
    cells: Sequence[Cell], weights: Sequence[float], *, titles: Sequence[str], facts: str, crop: CropMode
) -> Image.Image:
    """Draw a contact sheet with a bar over each frame, as high as its weight beside the strongest.

    The strongest is marked, and so is each that is nearly as high and well above an even share.
    Weights are shares of 1, written over the bars in percent. Raises ValueError for what a sheet does, and unless
    there is a weight a frame.
    """
    if len(weights) != len(cells):
        raise ValueError(f"{len(cells)} frames need as many weights, got {len(weights)}")
    return _draw(cells, weights, titles, facts, crop)


def _draw(
    cells: Sequence[Cell], weights: Sequence[float] | None, titles: Sequence[str], facts: str, crop: CropMode
) -> Image.Image:
    if len(cells) > MAX_CELLS:
        raise ValueError(f"a sheet holds {MAX_CELLS} frames at most, got {len(cells)}")
    picture = next((cell.pixels for cell in cells if cell.pixels is not None), None)
    if picture is None:
        raise ValueError("a sheet needs at least one picture")
    above = 0 if weights is None else line_height(_PERCENT_SIZE) + _BAR_HEIGHT + LINE_GAP
    grid = _Grid.of(cells, width=picture.shape[1], height=picture.shape[0], above=above)
    width = max(_NARROWEST_SHEET, grid.width + 2 * MARGIN)
    header = Header.of(titles, facts, width - 2 * MARGIN, title_lines=1 if weights is None else _FILMSTRIP_TITLE_LINES)
    sheet = Image.new("RGB", (width, header.height + grid.height + 2 * MARGIN), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    header.draw(draw)
    peaks = _peaks(weights or ())
    for place, cell in enumerate(cells):
        left, top = grid.corner(place)
        corner = (left + MARGIN, top + MARGIN + header.height)
        _draw_cell(sheet, draw, cell, grid, crop, (corner[0], corner[1] + above))
        if weights is not None:
            _draw_bar(draw, weights[place], max(weights), grid, corner, is_peak=place in peaks)
    return sheet


@dataclass(frozen=True)
class _Grid:
    """Where the cells go: pictures of one size, a caption of one or two lines under each, `above` pixels over it."""

    columns: int
    rows: int
    picture_width: int
    picture_height: int
    cell_width: int
    font_size: int
    caption_lines: int
    above: int

    @classmethod
    def of(cls, cells: Sequence[Cell], *, width: int, height: int, above: int = 0) -> "_Grid":
        font_size = 14 if max(width, height) >= 200 else 12
        letters = font(font_size)
        times = max(letters.getlength(format_time(cell.timestamp_seconds)) for cell in cells)
        indices = max(letters.getlength(f"#{cell.index}") for cell in cells)
        caption_lines = 1 if times + _GAP + indices <= width else 2
        cell_width = max(width, math.ceil(max(times, indices)))
        cell_height = above + height + caption_lines * line_height(font_size)
        columns = _choose_columns(len(cells), (cell_width + _GAP) / (cell_height + _GAP))
        return cls(columns, -(-len(cells) // columns), width, height, cell_width, font_size, caption_lines, above)

    @property
    def cell_height(self) -> int:
        return self.above + self.picture_height + self.caption_lines * line_height(self.font_size)

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
    letters, time, index = font(grid.font_size), format_time(cell.timestamp_seconds), f"#{cell.index}"
    below = top + grid.picture_height + LINE_GAP
    colour = TEXT if cell.pixels is not None else _GAP_INK
    if grid.caption_lines == 1:
        draw.text((inset, below), time, fill=colour, font=letters)
        right = inset + grid.picture_width - letters.getlength(index)
        draw.text((right, below), index, fill=DIM_TEXT, font=letters)
    else:
        draw.text((left, below), time, fill=colour, font=letters)
        draw.text((left, below + line_height(grid.font_size)), index, fill=DIM_TEXT, font=letters)


def _peaks(weights: Sequence[float]) -> set[int]:
    """The places of the weights that stand out: the strongest, and those nearly as high and well above an even share.

    >>> sorted(_peaks([0.03, 0.4, 0.04, 0.03, 0.03, 0.35, 0.06, 0.06]))
    [1, 5]
    """
    most = max(weights, default=0.0)
    least = max(_NEARLY * most, _WELL_ABOVE / len(weights)) if weights else 0.0
    return {place for place, weight in enumerate(weights) if weight == most or weight >= least}


def _draw_bar(
    draw: ImageDraw.ImageDraw, weight: float, most: float, grid: _Grid, corner: tuple[int, int], *, is_peak: bool
) -> None:
    """A bar that stands on the picture, its percent over it; a peak in another colour, its picture framed."""
    left = corner[0] + (grid.cell_width - grid.picture_width) // 2
    right, foot = left + grid.picture_width - 1, corner[1] + grid.above - LINE_GAP
    colour = _STRONGEST if is_peak else _BAR
    top = foot - max(1, round(_BAR_HEIGHT * weight / most)) if most > 0 else foot
    draw.rectangle((left, foot - _BAR_HEIGHT, right, foot), fill=_BAR_GROUND)
    draw.rectangle((left, top, right, foot), fill=colour)
    percent = f"{100 * weight:.1f} %"
    draw.text(((left + right) / 2, top - 3), percent, fill=colour, font=font(_PERCENT_SIZE), anchor="mb")
    if is_peak:
        picture = (left - 2, foot + LINE_GAP - 2, right + 2, foot + LINE_GAP + grid.picture_height + 1)
        draw.rectangle(picture, outline=_STRONGEST, width=2)


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
    middle, letters = ((left + right) / 2, (top + bottom) / 2), font(12)
    draw.rectangle(draw.textbbox(middle, " missing ", font=letters, anchor="mm"), fill=_GAP_FILL)
    draw.text(middle, "missing", fill=_GAP_INK, font=letters, anchor="mm")
