"""Stages 2 to 4: the decoder learns to answer about stills, then videos, of which a pool is encoded ahead."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfvqa.lab.motion_heads import MotionHeads, MotionTargets, Track, motion_targets
from sfvqa.lab.rows import RowBuilder, RowTrainer, Sample
from sfvqa.lab.seeing import encode_frames
from sfvqa.lab.tiny.conversations import Mixture, draw_conversation
from sfvqa.lab.tiny.questions import Family, Question, ask, refused
from sfvqa.lab.tiny.render import as_filmed, training_pixels
from sfvqa.lab.tiny.scenes import NUM_FRAMES, Scene, random_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.lab.tiny.other_videos import OtherVideos
    from sfvqa.model import SlowFastForConditionalGeneration


OTHER_LENGTHS = (1, 1, 2, 3, 4, 6, 8, 12, 16, 24, 48)
USUAL_LENGTH = 0.6  # share of other videos that are as long as a scene's
WITHOUT_VIDEO = 0.02  # share of rows that ask about a video without one, and are told so


@dataclass(frozen=True)
class PoolOptions:
    """How many videos wait, how many are new at each step, and which share of them are stills or other videos."""

    window: int
    fresh_per_step: int
    first_window: int
    stills: float = 0.0  # scenes in one frame, whose visual tokens are not pooled
    others: float = 0.0  # videos of another world, of any length

    @property
    def of_stills(self) -> bool:
        """Whether most of them are of one frame."""
        return self.stills > 0.5


@dataclass(frozen=True, eq=False)
class PooledVideo:
    """A scene, None for another video, and its visual tokens [T, h, w, D]."""

    scene: Scene | None
    visual_tokens: Tensor


class VideoPool:
    """The videos with numbers below `first_window + step * fresh_per_step`, the newest `window` of them."""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        options: PoolOptions,
        seed: tuple[int, ...],
        others: OtherVideos,
    ) -> None:
        self._model = model
        self._others = others
        self._options = options
        self._seed = seed
        self._videos: deque[PooledVideo] = deque(maxlen=options.window)
        self._next = 0

    def advance(self, step: int) -> None:
        """Make the window that belongs to `step`."""
        until = self._options.first_window + step * self._options.fresh_per_step
        self._next = max(self._next, until - self._options.window)
        while self._next < until:
            count = min(256 if self._options.of_stills else 16, until - self._next)
            self._videos.extend(self._encode(range(self._next, self._next + count)))
            self._next += count

    def draw(self, rng: np.random.Generator, count: int) -> list[PooledVideo]:
        """`count` videos of the window, the newest ones among them."""
        newest = min(self._options.fresh_per_step, count, len(self._videos))
        fresh = [self._videos[-1 - number] for number in range(newest)]
        return fresh + [self._videos[int(i)] for i in rng.integers(0, len(self._videos), size=count - newest)]

    def _encode(self, numbers: range) -> list[PooledVideo]:
        scenes, pixels = [], []
        for number in numbers:
            scene, frames = self._film(np.random.default_rng([*self._seed, number]))
            scenes.append(scene)
            pixels.append(frames)
        tokens = encode_frames(self._model, torch.cat(pixels)).split([len(part) for part in pixels])
        # An only frame is not pooled; clones, because a piece would keep all of them in memory.
        pooled = [(self._model.pool(part) if len(part) > 1 else part).clone() for part in tokens]
        return [PooledVideo(scene, part) for scene, part in zip(scenes, pooled, strict=True)]

    def _film(self, rng: np.random.Generator) -> tuple[Scene | None, Tensor]:
        """A scene, or None for another video, and its pixel values."""
        size, kind = self._model.config.vision.image_size, rng.random()
        still = kind < self._options.stills
        if kind > 1 - self._options.others:
            usual = 1 if self._options.of_stills else NUM_FRAMES
            length = usual if rng.random() < USUAL_LENGTH else OTHER_LENGTHS[int(rng.integers(len(OTHER_LENGTHS)))]
            return None, as_filmed(self._others.draw(rng, size, length).frames, rng)
        scene = random_scene(rng, still=still)
        times = np.zeros(1) if still else np.arange(NUM_FRAMES, dtype=np.float64)
        return scene, training_pixels(scene, size, times, rng)


class LanguageStage:
    """Draws rows about pooled videos and computes their loss."""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        pool: PoolOptions,
        seed: tuple[int, ...],
        others: OtherVideos,
        motion_heads: MotionHeads | None = None,
    ) -> None:
        self._model, self._rows, self._motion_heads = model, rows, motion_heads
        self._seed = seed
        self._trainer = RowTrainer(model, rows, motion_heads)
        self._pool = VideoPool(model, pool, (*seed, 1), others)

    def accumulate(self, step: int, mixture: Mixture, rows_at_once: int) -> float:
        """Add the gradient of step `step` and return its mean loss per learned token."""
        return self._trainer.accumulate(self.draw(step, mixture), rows_at_once)

    def draw(self, step: int, mixture: Mixture) -> list[Sample]:
        """The rows of a step, a function of the seed and `step` alone."""
        rng = np.random.default_rng([*self._seed, 2, step])
        self._pool.advance(step)
        samples = []
        for video in self._pool.draw(rng, mixture.rows_per_step):
            if video.scene is None:  # whatever is asked
                questions = [refused(draw_conversation(rng, random_scene(rng), mixture)[0].text)]
            else:
                questions = draw_conversation(rng, video.scene, mixture)
            if rng.random() < WITHOUT_VIDEO:
                samples.append(Sample(self._rows.build([refused(questions[0].text)], 0), None))
            else:
                samples.append(sample_of(video, questions, self._model, self._rows, self._motion_heads))
        return samples


def sample_of(
    video: PooledVideo,
    questions: Sequence[Question],
    model: SlowFastForConditionalGeneration,
    rows: RowBuilder,
    motion_heads: MotionHeads | None = None,
) -> Sample:
    """One row about one video."""
    tokens = model.split(video.visual_tokens.float()).to(model.device)
    motion = None
    if motion_heads is not None and video.scene is not None and len(video.visual_tokens) == NUM_FRAMES:
        motion = motion_of(video.scene, motion_heads.num_windows, motion_heads.grid)
    return Sample(rows.build(questions, len(tokens.fast)), tokens, motion)


def motion_of(scene: Scene, num_windows: int, grid: int) -> MotionTargets:
    """What is to be known at each of `num_windows` · `grid`² fast tokens of a video of the scene."""
    times = np.arange(NUM_FRAMES, dtype=np.float64)
    window = np.arange(NUM_FRAMES) * num_windows // NUM_FRAMES
    tracks = []
    for item in scene.objects:
        shown = np.flatnonzero(times >= item.appears_at)
        rank = sum(other.appears_at < item.appears_at for other in scene.objects)
        is_told = np.arange(num_windows) != window[shown[0]]  # a direction takes two windows to be seen
        places = item.positions(times[shown])
        tracks.append(Track(item.shape, item.direction, rank, places, window[shown], is_told))
    return motion_targets(tracks, num_windows, grid, NUM_FRAMES // num_windows)


class Examiner:
    """Accuracy by family on videos of its own: is every token of the answer the likeliest one?"""

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        *,
        still: bool,
        seed: int,
        others: OtherVideos,
        num_videos: int,
    ) -> None:
        options = PoolOptions(window=num_videos, fresh_per_step=0, first_window=num_videos, stills=float(still))
        self._model, self._rows = model, rows
        self._trainer = RowTrainer(model, rows)
        self._pool = VideoPool(model, options, (seed, 9, int(still)), others)
        self._families = [family for family in Family if not (still and family in (Family.ORDER, Family.DIRECTION))]

    def accuracy(
        self, per_family: int, families: Sequence[Family] | None = None, *, without_slow: bool = False
    ) -> dict[str, float]:
        """Share of right answers by family; with `without_slow` the gates are forced to zero."""
        rng = np.random.default_rng(9)
        self._pool.advance(0)
        shares = {}
        for family in families or self._families:
            samples: list[Sample] = []
            while len(samples) < per_family:
                video = self._pool.draw(rng, 1)[0]
                assert video.scene is not None  # the pool holds no others
                question = ask(rng, video.scene, family)
                if question is not None:
                    samples.append(sample_of(video, [question], self._model, self._rows))
            with self._model.without_slow() if without_slow else nullcontext():
                shares[family.value] = sum(self._trainer.are_right(samples)) / len(samples)
        return shares
