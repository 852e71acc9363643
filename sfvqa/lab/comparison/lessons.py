"""Rows about encoded videos: which frames they show, what they ask, and how many answers of a test are right."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from sfvqa.lab.comparison.questions import BenchmarkFamily, ask_all
from sfvqa.lab.motion_heads import MotionTargets, Track, motion_targets
from sfvqa.lab.rows import IGNORED, RowBuilder, RowTrainer, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sfvqa.lab.comparison.cells import Settings
    from sfvqa.lab.comparison.questions import BenchmarkQuestion
    from sfvqa.lab.comparison.scenes import BenchmarkScene
    from sfvqa.lab.comparison.videos import EncodedVideos
    from sfvqa.lab.motion_heads import MotionHeads
    from sfvqa.lab.rows import Turn
    from sfvqa.model import SlowFastForConditionalGeneration


AT_ONCE_IN_TESTS = 20
FEW_FRAMES = 10
RARE_SHARE = 0.35  # of the rows
ROUNDS = 6  # of drawing questions for one row
LEAST_WAY = 0.12  # of the frame, before a direction can be told


class Shown(StrEnum):
    """Which frames of a video a row is about."""

    EVENLY = "evenly"
    """Evenly spaced ones, as a user's would be."""
    TELLING = "telling"
    """Evenly spaced ones, moved so that they show every event."""
    FEW = "few"
    """Those of plates that bear one kind of thing and a few more, and questions that one of them answers."""
    ONE = "one"
    """A single one, and questions that it answers."""


class Lessons:
    """Draws rows about encoded videos. The rows of a step depend on seed and step alone: cells see the same ones.

    `motion_heads` teach beside the answers what moves.
    """

    def __init__(
        self,
        model: SlowFastForConditionalGeneration,
        rows: RowBuilder,
        settings: Settings,
        num_frames: int,
        seed: int,
        *,
        shown: Shown = Shown.EVENLY,
        motion_heads: MotionHeads | None = None,
    ) -> None:
        self._model, self._rows = model, rows
        self._settings = settings
        self._num_frames = num_frames
        self._seed = seed
        self._shown = shown
        self._motion_heads = motion_heads
        self._trainer = RowTrainer(model, rows, motion_heads, in_16_bit=True)

    def accumulate(self, step: int, videos: EncodedVideos) -> float:
        """Add the gradient of a step and return its mean loss per learned token."""
        return self._trainer.accumulate(self.draw(step, videos), self._settings.rows_at_once)

    def draw(self, step: int, videos: EncodedVideos) -> list[Sample]:
        """The rows of a step: some questions each, in random order."""
        rng = np.random.default_rng([self._seed, 3, step])
        samples = []
        for number in self._numbers(rng, videos):
            scene = videos.items[number].scene
            questions = many_questions(rng, scene)
            if self._shown in (Shown.ONE, Shown.FEW):
                moments = one_moment(rng, scene, questions) if self._shown is Shown.ONE else few_moments(rng, scene)
                questions = answered_by(moments, scene, questions)
            else:
                moments = self._moments(scene)
            turns = all_families(rng, questions, self._settings.num_turns)
            samples.append(self._sample(videos, number, turns, moments))
        return samples

    def _numbers(self, rng: np.random.Generator, videos: EncodedVideos) -> list[int]:
        """The videos of a step; those that answer the rarest family come more often than they are."""
        size = self._settings.rows_per_step
        numbers = rng.integers(0, len(videos.items), size=size)
        rare = videos.with_family(BenchmarkFamily.DIGIT_AT)
        if rare:
            is_rare = rng.random(size) < RARE_SHARE
            numbers = np.where(is_rare, np.array(rare)[rng.integers(0, len(rare), size=size)], numbers)
        return [int(number) for number in numbers]

    def _moments(self, scene: BenchmarkScene) -> NDArray[np.intp]:
        sampled = scene.timeline.sampled if self._shown is Shown.EVENLY else scene.telling_moments
        return sampled(self._num_frames)

    def score(self, videos: EncodedVideos) -> dict[str, str]:
        """By family, "1" or "0" for every question of the test set in its order: is all of the answer the likeliest?

        Every question is asked alone.
        """
        outcomes: dict[str, str] = {}
        asked = [(number, question) for number, item in enumerate(videos.items) for question in item.questions]
        for start in range(0, len(asked), AT_ONCE_IN_TESTS):
            chunk = asked[start : start + AT_ONCE_IN_TESTS]
            moments = [self._moments(videos.items[number].scene) for number, _ in chunk]
            samples = [self._sample(videos, n, [q], shown) for (n, q), shown in zip(chunk, moments, strict=True)]
            for (_, question), is_right in zip(chunk, self._trainer.are_right(samples), strict=True):
                outcomes[question.family] = outcomes.get(question.family, "") + str(int(is_right))
        return outcomes

    def mean_text(self, videos: EncodedVideos) -> int:
        """Text tokens of a prompt of the test set, on average."""
        lengths = [
            sum(label == IGNORED for label in self._rows.build([question], 0).labels)
            for item in videos.items
            for question in item.questions
        ]
        return round(sum(lengths) / len(lengths))

    def _sample(
        self, videos: EncodedVideos, number: int, questions: Sequence[Turn], moments: NDArray[np.intp]
    ) -> Sample:
        scene = videos.items[number].scene
        tokens = self._model.split(videos.tokens(number, moments).to(self._model.device))
        motion = None if self._motion_heads is None else motion_of(scene, moments, self._motion_heads.grid)
        return Sample(self._rows.build(questions, len(tokens.fast)), tokens, motion)


def motion_of(scene: BenchmarkScene, moments: NDArray[np.intp], grid: int) -> MotionTargets:
    """What can be known at each of the `grid`² tokens of the frames at `moments`, by one who sees no later ones."""
    times = scene.timeline.seconds[moments]
    sway = scene.camera.offsets(times)
    tracks = []
    for mover in scene.movers:
        places, is_there = mover.positions(times), times >= mover.appears_at
        has_moved = is_there & (np.abs(places - places[is_there.argmax()]).sum(-1) > LEAST_WAY)
        rank = sum(other.appears_at < mover.appears_at for other in scene.movers)
        shown = np.flatnonzero(is_there)
        tracks.append(Track(mover.shape, mover.direction, rank, (places + sway)[shown], shown, has_moved))
    return motion_targets(tracks, len(moments), grid)


def many_questions(rng: np.random.Generator, scene: BenchmarkScene) -> list[BenchmarkQuestion]:
    """Several of each family, no answer of a family twice: who tells four plates apart in one row is not guessing."""
    found: dict[tuple[str, str], BenchmarkQuestion] = {}
    for _ in range(ROUNDS):
        for question in ask_all(rng, scene):
            found.setdefault((question.family, question.answer), question)
    return list(found.values())


def all_families(
    rng: np.random.Generator, questions: Sequence[BenchmarkQuestion], count: int
) -> list[BenchmarkQuestion]:
    """Up to `count` of them in random order, a second one of a family only once there is one of each."""
    drawn = [questions[int(place)] for place in rng.permutation(len(questions))]
    asked: Counter[str] = Counter()
    rounds = []
    for question in drawn:
        rounds.append(asked[question.family])
        asked[question.family] += 1
    chosen = sorted(np.argsort(rounds, kind="stable")[:count])
    return [drawn[place] for place in chosen]


def one_moment(
    rng: np.random.Generator, scene: BenchmarkScene, questions: Sequence[BenchmarkQuestion]
) -> NDArray[np.intp]:
    """A moment that answers one of `questions`, drawn at random."""
    spans = [question.seen_during for question in questions if question.seen_during is not None]
    span = spans[int(rng.integers(len(spans)))]
    return rng.choice(np.flatnonzero(span.holds(scene.timeline.seconds)), size=1)


def few_moments(rng: np.random.Generator, scene: BenchmarkScene) -> NDArray[np.intp]:
    """FEW_FRAMES moments in order: one of each plate that bears one kind of thing, the others at random."""
    seconds = scene.timeline.seconds
    bursts = scene.bursts_of(scene.bursts[int(rng.integers(len(scene.bursts)))].sign) if scene.bursts else ()
    plates = [plate for burst in bursts for plate in burst.plates]
    chosen = [int(rng.choice(np.flatnonzero(plate.span.holds(seconds)))) for plate in plates]
    others = rng.integers(0, len(seconds), size=FEW_FRAMES - len(chosen))
    return np.sort(np.array([*chosen, *others], dtype=np.intp))


def answered_by(
    moments: NDArray[np.intp], scene: BenchmarkScene, questions: Sequence[BenchmarkQuestion]
) -> list[BenchmarkQuestion]:
    """Those of `questions` that one of the frames at `moments` answers."""
    times = scene.timeline.seconds[moments]
    return [question for question in questions if question.seen_during and question.seen_during.holds(times).any()]
