"""Videos that show nothing of the synthetic world: photographs under a moving camera, cuts, screens, text, noise.

From them the bundled model learns to see that there are no shapes. A clip is a function of the random generator and
of the pictures alone (see pictures.py); frames are float32 from 0 to 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sfvqa.training import drawn_videos
from sfvqa.training.drawn_videos import any_colour, as_floats, between, path

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sfvqa.training.pictures import Pictures

    Floats = NDArray[np.float32]


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
            OtherKind.SCREEN: drawn_videos.screen,
            OtherKind.TEXT: drawn_videos.text_clip,
            OtherKind.PLAIN: drawn_videos.plain,
            OtherKind.NOISE: drawn_videos.noise,
            OtherKind.DRAWING: drawn_videos.drawing,
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
