"""The contact sheet: what lies where on it, what is darkened, and that it stays bounded and legible."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sfvqa.video.contact_sheet import (
    MAX_CELLS,
    Cell,
    _peaks,
    draw_contact_sheet,
    fit_for_sheet,
    fit_lines,
    font,
)
from sfvqa.video.fitting import CropMode, FitWithin

WHITE, RED = (255, 255, 255), (255, 0, 0)


def grey_cells(num_cells: int, width: int, height: int, level: int = 255) -> list[Cell]:
    """Cells of one colour, a second and a hundred frames apart."""
    return [Cell(100 * n, float(n), np.full((height, width, 3), level, np.uint8)) for n in range(num_cells)]


def sheet(cells: list[Cell], crop: CropMode = CropMode.CENTER, title: str = "clip.mp4") -> NDArray[np.uint8]:
    return np.asarray(draw_contact_sheet(cells, titles=[title], facts="4 s long, 2 frames", crop=crop))


def box_of(picture: NDArray[np.uint8], colour: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of all that has the colour."""
    rows, columns = np.nonzero((picture == colour).all(axis=-1))
    left, top = int(columns.min()), int(rows.min())
    return left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1


@pytest.mark.parametrize(("width", "height"), [(320, 180), (135, 240), (301, 200)])
def test_what_the_centre_crop_cuts_away_is_darkened(width: int, height: int) -> None:
    """All of the square but its outline is as it was; the rest is there, but dark."""
    picture = sheet(grey_cells(1, width, height))
    side = min(width, height)
    assert box_of(picture, WHITE)[2:] == (side - 2, side - 2)
    dark = int(255 * 0.3)
    assert ((picture == (dark, dark, dark)).all(axis=-1)).sum() == width * height - side * side


@pytest.mark.parametrize(
    ("crop", "width", "height"),
    [(CropMode.PAD, 320, 180), (CropMode.SQUASH, 320, 180), (CropMode.CENTER, 240, 240)],
)
def test_where_all_is_seen_nothing_is_marked(crop: CropMode, width: int, height: int) -> None:
    picture = sheet(grey_cells(1, width, height), crop)
    assert box_of(picture, WHITE)[2:] == (width, height)


def test_the_square_is_the_one_the_model_sees() -> None:
    """The middle of the picture: the left half is white, the right one red, and the border is in the centre."""
    pixels = np.full((100, 300, 3), 255, np.uint8)
    pixels[:, 150:] = RED
    picture = sheet([Cell(0, 0.0, pixels)])
    white, red = box_of(picture, WHITE), box_of(picture, RED)
    assert (white[2:], red[2:], white[0] + white[2]) == ((49, 98), (49, 98), red[0])


def test_frames_come_in_order_row_by_row() -> None:
    cells = [Cell(n, float(n), np.full((90, 160, 3), 40 + n, np.uint8)) for n in range(7)]
    picture = sheet(cells, CropMode.PAD)
    corners = [box_of(picture, (40 + n, 40 + n, 40 + n)) for n in range(7)]
    assert all(corner[2:] == (160, 90) for corner in corners)
    assert corners == sorted(corners, key=lambda corner: (corner[1], corner[0]))
    assert len({corner[0] for corner in corners}) > 1


def test_a_missing_frame_is_a_marked_gap_of_the_same_size() -> None:
    cells = grey_cells(3, 160, 90)
    cells[1] = Cell(100, 1.0, None)
    picture = sheet(cells, CropMode.PAD)
    left, top, width, height = box_of(picture, (238, 128, 116))
    assert (width, height >= 90) == (160, True)
    whole = box_of(picture, WHITE)
    assert whole[0] < left
    assert whole[1] == top


def test_captions_and_title_are_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times as everywhere, indices, and the title and facts in letters that the font has."""
    drawn: list[str] = []
    draw_text = ImageDraw.ImageDraw.text

    def note(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: object) -> None:
        drawn.append(text)
        draw_text(self, xy, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    cells = [Cell(0, 0.0, np.zeros((180, 320, 3), np.uint8)), Cell(107_999, 3599.967, None)]
    draw_contact_sheet(cells, titles=["Café\n日本\udcff.mp4"], facts="640×360 — “ok”", crop=CropMode.PAD)
    assert drawn[:2] == ["Cafe????.mp4", '640x360 - "ok"']
    assert {"0:00", "#0", "59:59.967", "#107999", "missing"} <= set(drawn)


@pytest.mark.parametrize(
    ("width", "height", "num_cells"),
    [
        *((1920, 1080, num_cells) for num_cells in (1, 2, 7, 64, MAX_CELLS)),
        *((1080, 1920, num_cells) for num_cells in (1, 7, 1000)),
        *((8192, 16, num_cells) for num_cells in (1, 7, 1000)),
    ],
)
def test_the_size_is_bounded_and_the_shape_that_of_a_screen(num_cells: int, width: int, height: int) -> None:
    """However many frames: not above 40 megapixels, nor a ribbon; JPEG and WebP hold it."""
    small = fit_for_sheet(num_cells)(np.zeros((height, width, 3), np.uint8))
    cells = [Cell(n, n / 30, small) for n in range(num_cells)]
    picture = draw_contact_sheet(cells, titles=["t"], facts="f", crop=CropMode.PAD)
    assert picture.width * picture.height < 40_000_000
    assert max(picture.size) < 16_384
    if num_cells > 2:
        assert 0.8 < picture.width / picture.height < 4


def test_captions_never_run_into_each_other() -> None:
    """Under narrow pictures the index goes below the time, and the cell is as wide as the wider of them."""
    cells = [Cell(1_000_000 + n, 36_000.123 + n, np.zeros((96, 54, 3), np.uint8)) for n in range(40)]
    wide = [Cell(n, float(n), np.zeros((96, 54, 3), np.uint8)) for n in range(40)]
    narrow_sheet, wide_sheet = sheet(cells), sheet(wide)
    assert narrow_sheet.shape[0] * narrow_sheet.shape[1] > wide_sheet.shape[0] * wide_sheet.shape[1]


def test_a_long_title_is_shortened_in_the_middle() -> None:
    """It takes no room from the frames: the sheet is as wide as it would be."""
    short, long = sheet(grey_cells(4, 320, 180)), sheet(grey_cells(4, 320, 180), title="x" * 3000 + ".mp4")
    assert short.shape == long.shape


@pytest.mark.parametrize(("num_frames", "width"), [(1, 320), (100, 320), (1000, 109), (100_000, 64)])
def test_the_more_frames_the_smaller(num_frames: int, width: int) -> None:
    fit = fit_for_sheet(num_frames)
    assert isinstance(fit, FitWithin)
    assert (fit.width, fit.height) == (width, width * 3 // 4)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one picture"):
        sheet([Cell(0, 0.0, None)])
    with pytest.raises(ValueError, match="4096"):
        sheet(grey_cells(MAX_CELLS + 1, 1, 1))


def test_the_frames_are_left_as_they_were() -> None:
    """A pure function: what is darkened is a copy."""
    cells = grey_cells(1, 320, 180)
    assert isinstance(draw_contact_sheet(cells, titles=["t"], facts="", crop=CropMode.CENTER), Image.Image)
    assert cells[0].pixels is not None
    assert (cells[0].pixels == 255).all()


# --- the filmstrip ---

BAR, STRONGEST = (96, 148, 214), (255, 132, 92)


def strip(cells: list[Cell], weights: list[float]) -> NDArray[np.uint8]:
    return np.asarray(
        draw_contact_sheet(
            cells, titles=("What flashes?", "Answer: It."), facts="4 s", crop=CropMode.PAD, weights=weights
        )
    )


def test_bars_stand_over_their_frames_as_high_as_their_weights() -> None:
    """Three frames side by side: the middle one strongest, the right one half as strong, and the left one nothing."""
    picture = strip(grey_cells(3, 120, 90), [0.0, 0.6, 0.3])
    left, _, width, _ = box_of(picture, BAR)
    assert (left, width) == (16, 120 + 10 + 120 + 10 + 120)
    bars = [
        int((picture[:, 16 + 130 * place + 2] == colour).all(axis=-1).sum())
        for place, colour in enumerate((BAR, STRONGEST, BAR))
    ]
    assert bars[0] == 2
    assert bars[2] == pytest.approx(bars[1] / 2, abs=3)


def test_only_the_strongest_is_framed() -> None:
    picture = strip(grey_cells(6, 120, 90), [0.1, 0.1, 0.5, 0.1, 0.1, 0.1])
    _, white_top, *_ = box_of(picture, WHITE)
    rows = slice(white_top + 10, white_top + 80)
    framed = np.nonzero((picture[rows] == STRONGEST).all(axis=(0, 2)))[0]
    assert len(framed) == 4


def test_a_second_peak_is_framed_too() -> None:
    """An answer about a digit looks at both frames that show it; only the stronger one was marked."""
    weights = [0.03, 0.35, 0.2, 0.03, 0.03, 0.3, 0.03, 0.03]
    assert _peaks(weights) == {1, 5}
    assert _peaks([*weights[:5], 0.15, 0.1, 0.11]) == {1}
    both, one = (strip(grey_cells(8, 120, 90), values) for values in (weights, [*weights[:5], 0.2, 0.08, 0.08]))
    framed = [int((picture == STRONGEST).all(axis=-1).sum()) for picture in (both, one)]
    assert framed[0] > 1.7 * framed[1]


@pytest.mark.parametrize("num_frames", [1, 8, 32, 128])
def test_a_filmstrip_is_about_as_wide_as_a_screen(num_frames: int) -> None:
    fit = fit_for_sheet(num_frames, with_bars=True)
    cells = grey_cells(num_frames, fit.width, fit.height)
    height, width, _ = strip(cells, [1 / num_frames] * num_frames).shape
    assert 480 <= width <= 2400
    assert height <= 1600


def test_a_filmstrip_needs_a_weight_a_frame() -> None:
    with pytest.raises(ValueError, match="3 frames need as many weights, got 2"):
        strip(grey_cells(3, 120, 90), [0.5, 0.5])


def test_a_frame_that_is_missing_has_its_bar_all_the_same() -> None:
    cells = [*grey_cells(2, 120, 90), Cell(200, 2.0, None)]
    assert int((strip(cells, [0.2, 0.2, 0.6]) == STRONGEST).all(axis=-1).sum()) > 120 * 40


def test_a_long_question_takes_lines_of_its_own() -> None:
    """Up to three: of a longer one the end stays."""
    question = " ".join(["words"] * 80) + " end?"
    cells, crop = grey_cells(3, 120, 90), CropMode.PAD
    heights = [
        draw_contact_sheet(cells, titles=[title], facts="4 s", crop=crop, weights=[0.2, 0.3, 0.5]).height
        for title in ("Q?", question[-80:], question, question * 9)
    ]
    assert heights[0] < heights[1] < heights[2] == heights[3]
    lines = fit_lines(question, font(20), 400, 3)
    assert (len(lines), lines[-1].endswith("end?"), "…" in lines[-1]) == (3, True, True)
    assert all(font(20).getlength(line) <= 400 for line in lines)
