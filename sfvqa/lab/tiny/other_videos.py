"""Clips of another world: of collected pictures, or drawn (screens, titles, snow, slides) in none of tiny's shapes.

Frames are float32 from 0 to 1, a function of the random generator alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sfvqa.lab.tiny.pictures import Pictures

    Floats = NDArray[np.float32]
    RGB = tuple[int, int, int]


FINENESS = 3  # what is drawn is drawn so many times as large, then scaled down
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def screen(rng: np.random.Generator, size: int, num_frames: int) -> Floats:
    """Windows with lines of text, one of which scrolls, and a pointer that moves now and then."""
    side = size * FINENESS
    desk = Image.new("RGB", (side, side), any_colour(rng))
    for _ in range(int(rng.integers(1, 4))):
        _draw_window(rng, desk, side)
    page = _page(rng, side, 3 * side)
    left, top = (int(part) for part in rng.uniform(0, 0.3, size=2) * side)
    width, height = (int(part) for part in rng.uniform(0.45, 0.7, size=2) * side)
    scrolled = np.cumsum(rng.choice([0, 0, 0, 1], size=num_frames) * rng.uniform(0, 0.2) * side)
    pointer = np.repeat(path(rng, num_frames // 4 + 1), 4, axis=0)[:num_frames] * side
    frames = []
    for offset, (x, y) in zip(np.minimum(scrolled, 3 * side - height), pointer, strict=True):
        view = desk.copy()
        view.paste(page.crop((0, int(offset), width, int(offset) + height)), (left, top))
        ImageDraw.Draw(view).polygon([(x, y), (x, y + 10), (x + 7, y + 7)], fill="white", outline="black")
        frames.append(_shrunk(view, size))
    return np.stack(frames)


def _draw_window(rng: np.random.Generator, desk: Image.Image, side: int) -> None:
    left, top = (int(part) for part in rng.uniform(-0.1, 0.6, size=2) * side)
    width, height = (int(part) for part in rng.uniform(0.3, 0.9, size=2) * side)
    desk.paste(_page(rng, width, height), (left, top))
    draw = ImageDraw.Draw(desk)
    draw.rectangle((left, top, left + width, top + side // 16), fill=any_colour(rng))
    draw.rectangle((left, top, left + width, top + height), outline=any_colour(rng))


def _page(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Lines of words, light on dark or dark on light, some blocks among them."""
    is_dark = rng.random() < 0.4
    ground, ink = ((30, 32, 38), (215, 215, 210)) if is_dark else ((248, 248, 246), (40, 40, 44))
    page = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(page)
    line = int(rng.integers(9, 22))
    font = ImageFont.load_default(line * 0.8)
    for top in range(4, height, line):
        kind = rng.random()
        if kind < 0.7:
            draw.text((6 + line * int(rng.integers(0, 3)), top), _words(rng, int(rng.integers(2, 9))), ink, font=font)
        elif kind < 0.8:
            draw.rectangle((6, top, 6 + rng.uniform(0.2, 0.9) * width, top + line), fill=any_colour(rng))
    return page


def text_clip(rng: np.random.Generator, size: int, num_frames: int) -> Floats:
    """Titles and credits: words at any size, that rest, change or roll."""
    side = size * FINENESS
    tall = Image.new("RGB", (side, 3 * side), any_colour(rng))
    draw = ImageDraw.Draw(tall)
    ink = any_colour(rng)
    font = ImageFont.load_default(side * float(rng.uniform(0.06, 0.24)))
    top = 0.0
    while top < 3 * side:
        draw.text((side * rng.uniform(-0.1, 0.3), top), _words(rng, int(rng.integers(1, 4))), ink, font=font)
        top += side * rng.uniform(0.15, 0.5)
    moves = rng.random() < 0.5
    tops = between(0, 2 * side if moves else 0, num_frames)
    if not moves and rng.random() < 0.5:
        tops = np.repeat(rng.uniform(0, 2 * side, size=num_frames // 6 + 1), 6)[:num_frames]
    return np.stack([_shrunk(tall.crop((0, int(at), side, int(at) + side)), size) for at in tops])


def plain(rng: np.random.Generator, size: int, num_frames: int) -> Floats:
    """One colour, often black, or a change from one to another."""
    first = np.zeros(3) if rng.random() < 0.4 else rng.uniform(0, 1, size=3)
    last = first if rng.random() < 0.6 else rng.uniform(0, 1, size=3)
    tones = first + between(0, 1, num_frames)[:, None] * (last - first)
    return np.broadcast_to(tones[:, None, None], (num_frames, size, size, 3)).astype(np.float32)


def noise(rng: np.random.Generator, size: int, num_frames: int) -> Floats:
    """Snow of any grain, in grey or colour, that changes with each frame or drifts."""
    grain = int(rng.integers(1, 17))
    cells = -(-size // grain)
    channels = 3 if rng.random() < 0.5 else 1
    spread = rng.uniform(0.1, 0.5)
    if rng.random() < 0.5:
        rough = rng.normal(0.5, spread, size=(num_frames, cells, cells, channels))
    else:
        wide = rng.normal(0.5, spread, size=(cells, cells + num_frames, channels))
        rough = np.stack([wide[:, number : number + cells] for number in range(num_frames)])
    bytes_ = (np.clip(np.broadcast_to(rough, (*rough.shape[:3], 3)), 0, 1) * 255).astype(np.uint8)
    smooth = Image.Resampling.BICUBIC if rng.random() < 0.7 else Image.Resampling.NEAREST
    return np.stack([as_floats(Image.fromarray(frame).resize((size, size), smooth)) for frame in bytes_])


def drawing(rng: np.random.Generator, size: int, num_frames: int) -> Floats:
    """Curves, bars, grids and long blots that grow: what slides and cartoons are made of, in none of tiny's shapes."""
    side = size * FINENESS
    view = Image.new("RGB", (side, side), any_colour(rng))
    drawers = (_draw_curve, _draw_bars, _draw_grid, _draw_blot)
    num_strokes = int(rng.integers(2, 9))
    due = np.sort(rng.integers(0, num_frames, size=num_strokes)) if rng.random() < 0.6 else np.zeros(num_strokes)
    frames: list[Floats] = []
    for number in range(num_frames):
        new = np.flatnonzero(due == number)
        for _ in new:
            drawers[int(rng.integers(len(drawers)))](rng, ImageDraw.Draw(view), side)
        frames.append(_shrunk(view, size) if len(new) or not frames else frames[-1])
    return np.stack(frames)


def _draw_curve(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    points = np.cumsum(rng.normal(0, 0.12, size=(int(rng.integers(4, 30)), 2)), axis=0) + rng.uniform(0, 1, size=2)
    draw.line([(x * side, y * side) for x, y in points], fill=any_colour(rng), width=int(rng.integers(1, 10)))


def _draw_bars(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    width, fill = side * rng.uniform(0.04, 0.12), any_colour(rng)
    for number, height in enumerate(rng.uniform(0.1, 0.9, size=int(rng.integers(3, 9)))):
        left = number * 1.3 * width
        draw.rectangle((left, side * (1 - height), left + width, side), fill=fill)


def _draw_grid(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    step, fill = side * rng.uniform(0.06, 0.25), any_colour(rng)
    for at in np.arange(0, side, step):
        draw.line((at, 0, at, side), fill=fill, width=2)
        draw.line((0, at, side, at), fill=fill, width=2)


def _draw_blot(rng: np.random.Generator, draw: ImageDraw.ImageDraw, side: int) -> None:
    """A long uneven polygon, at least half as long as the frame."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, size=int(rng.integers(7, 14))))
    radii = side * rng.uniform(0.15, 0.5, size=len(angles))
    x, y = rng.uniform(0, side, size=2)
    points = [(x + 1.6 * r * np.cos(a), y + 0.6 * r * np.sin(a)) for r, a in zip(radii, angles, strict=True)]
    draw.polygon(points, fill=any_colour(rng))


# --- parts ---------------------------------------------------------------------------------------------------------


def between(first: float, last: float, num_frames: int) -> NDArray[np.float64]:
    return np.linspace(first, last, num_frames)


def path(rng: np.random.Generator, num_frames: int, low: float = 0.0, high: float = 1.0) -> NDArray[np.float64]:
    """Places [T, 2] on the way from one point to another, by a third one."""
    first, last, bend = rng.uniform(low, high, size=(3, 2))
    share = between(0, 1, num_frames)[:, None]
    curved = (rng.random() < 0.4) * share * (1 - share)
    return np.asarray(first * (1 - share) + last * share + curved * (bend - (first + last) / 2))


def any_colour(rng: np.random.Generator) -> RGB:
    red, green, blue = (int(part) for part in rng.integers(0, 256, size=3))
    return red, green, blue


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(_word(rng) for _ in range(count))


def _word(rng: np.random.Generator) -> str:
    letters = [LETTERS[int(i)] for i in rng.integers(0, 26, size=int(rng.integers(2, 10)))]
    word = "".join(letters)
    return word.capitalize() if rng.random() < 0.3 else word


def as_floats(view: Image.Image) -> Floats:
    return np.asarray(view, dtype=np.float32) / np.float32(255)


def _shrunk(view: Image.Image, size: int) -> Floats:
    return as_floats(view.resize((size, size), Image.Resampling.BOX))


class OtherKind(StrEnum):
    """What a clip shows."""

    PHOTOGRAPH = "photograph"
    CUTS = "cuts"
    THINGS = "things"
    SCREEN = "screen"
    TEXT = "text"
    PLAIN = "plain"
    NOISE = "noise"
    DRAWING = "drawing"


SHARES = {
    OtherKind.PHOTOGRAPH: 0.3,
    OtherKind.CUTS: 0.14,
    OtherKind.THINGS: 0.26,
    OtherKind.SCREEN: 0.08,
    OtherKind.TEXT: 0.06,
    OtherKind.PLAIN: 0.05,
    OtherKind.NOISE: 0.05,
    OtherKind.DRAWING: 0.06,
}


@dataclass(frozen=True, eq=False)
class OtherClip:
    """Frames [T, S, S, 3] float32 from 0 to 1, and what they show."""

    kind: OtherKind
    frames: Floats


class OtherVideos:
    """Draws clips from a collection of pictures."""

    def __init__(self, pictures: Pictures) -> None:
        self._photographs = [Image.fromarray(picture) for picture in pictures.photographs]
        self._cut_outs = [Image.fromarray(picture, "RGBA") for picture in pictures.cut_outs]
        self._draw = {
            OtherKind.PHOTOGRAPH: self._photograph,
            OtherKind.CUTS: self._cuts,
            OtherKind.THINGS: self._things,
            OtherKind.SCREEN: screen,
            OtherKind.TEXT: text_clip,
            OtherKind.PLAIN: plain,
            OtherKind.NOISE: noise,
            OtherKind.DRAWING: drawing,
        }

    def draw(self, rng: np.random.Generator, size: int, num_frames: int, kind: OtherKind | None = None) -> OtherClip:
        """A clip of `num_frames` frames of `size` pixels, of a `kind` drawn by SHARES unless one is asked for."""
        if kind is None:
            kind = list(SHARES)[int(rng.choice(len(SHARES), p=list(SHARES.values())))]
        frames = self._draw[kind](rng, size, num_frames)
        return OtherClip(kind, frames if kind is OtherKind.PLAIN else _developed(rng, frames))

    # --- pictures --------------------------------------------------------------------------------------------------

    def _photograph(self, rng: np.random.Generator, size: int, num_frames: int) -> Floats:
        return np.stack([as_floats(view) for view in self._views(rng, size, num_frames)])

    def _views(self, rng: np.random.Generator, size: int, num_frames: int) -> list[Image.Image]:
        """A photograph as a camera sees it that rests, moves or zooms, perhaps with a shaking hand."""
        picture = self._photographs[int(rng.integers(len(self._photographs)))]
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        sides = between(rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0), num_frames)
        places = path(rng, num_frames)
        if rng.random() < 0.35:  # a camera on a stand
            sides[:], places[:] = sides[0], places[0]
        elif rng.random() < 0.3:
            places = np.clip(places + rng.normal(0, 0.02, size=places.shape), 0, 1)
        side = sides * min(picture.size)
        left = places[:, 0] * (picture.width - side)
        top = places[:, 1] * (picture.height - side)
        boxes = zip(left, top, left + side, top + side, strict=True)
        return [picture.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0) for box in boxes]

    def _cuts(self, rng: np.random.Generator, size: int, num_frames: int) -> Floats:
        num_shots = min(num_frames, int(rng.integers(2, 6)))
        starts = np.sort(rng.choice(np.arange(1, num_frames), size=num_shots - 1, replace=False))
        lengths = np.diff([0, *map(int, starts), num_frames])
        shots = [self._photograph, self._photograph, self._things]
        return np.concatenate(
            [shots[int(rng.integers(len(shots)))](rng, size, int(length)) for length in lengths], dtype=np.float32
        )

    def _things(self, rng: np.random.Generator, size: int, num_frames: int) -> Floats:
        """Cut-outs that move before a photograph or an even ground."""
        if rng.random() < 0.7:
            views = self._views(rng, size, num_frames)
        else:
            views = [Image.new("RGB", (size, size), any_colour(rng)) for _ in range(num_frames)]
        for _ in range(int(rng.integers(1, 5))):
            thing = self._cut_outs[int(rng.integers(len(self._cut_outs)))]
            long = rng.uniform(0.12, 0.75) * size
            shape = tuple(max(3, round(long * side / max(thing.size))) for side in thing.size)
            thing = thing.resize((shape[0], shape[1]), Image.Resampling.BILINEAR, reducing_gap=2.0)
            begin = int(rng.integers(num_frames)) if rng.random() < 0.25 else 0
            places = path(rng, num_frames, low=-0.2, high=1.2) if rng.random() < 0.8 else _rest(rng, num_frames)
            for number in range(begin, num_frames):
                corner = places[number] * size - np.array(shape) / 2
                views[number].paste(thing, (round(corner[0]), round(corner[1])), thing)
        return np.stack([as_floats(view) for view in views])


def _developed(rng: np.random.Generator, frames: Floats) -> Floats:
    """Exposure, tint, grey, black bars: what cameras and cuts of a film do to any picture."""
    if rng.random() < 0.15:
        frames = np.broadcast_to(frames.mean(-1, keepdims=True), frames.shape)
    gains = rng.uniform(0.45, 1.25) * rng.uniform(0.9, 1.1, size=3)
    offset = rng.uniform(-0.08, 0.12)
    frames = np.clip(frames * gains.astype(np.float32) + np.float32(offset), 0, 1).astype(np.float32)
    if rng.random() < 0.15:
        bar = int(rng.uniform(0.06, 0.22) * frames.shape[1])
        axis = int(rng.integers(1, 3))
        for part in (slice(0, bar), slice(frames.shape[axis] - bar, None)):
            frames[(slice(None), part) if axis == 1 else (slice(None), slice(None), part)] = 0
    return frames


def _rest(rng: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    return np.tile(rng.uniform(0, 1, size=2), (num_frames, 1))
