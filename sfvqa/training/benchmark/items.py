"""Scenes with their questions, drawn by number; the fixed test set and its hash; what guessing would reach."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.training.benchmark.questions import BenchmarkFamily, BenchmarkQuestion, ask_all
from sfvqa.training.benchmark.random_scenes import random_scene

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfvqa.training.benchmark.scenes import BenchmarkScene, Timeline

BENCHMARK = 2_000_003  # tiny's scenes are drawn from other seeds
TRAINING, TESTING = 0, 1
DECIMALS = 6


@dataclass(frozen=True)
class Item:
    """A scene and one question of every family that it answers."""

    scene: BenchmarkScene
    questions: tuple[BenchmarkQuestion, ...]


def draw_item(part: int, seed: int, number: int, timeline: Timeline | None = None) -> Item:
    """Item `number` of TRAINING or TESTING: a function of its arguments alone."""
    rng = np.random.default_rng([BENCHMARK, part, seed, number])
    scene = random_scene(rng, timeline)
    return Item(scene, tuple(ask_all(rng, scene)))


def fixed_test_set(num_scenes: int, *, timeline: Timeline | None = None) -> list[Item]:
    """The fixed test set: the same for every seed of training, which never sees it."""
    return [draw_item(TESTING, 0, number, timeline) for number in range(num_scenes)]


def digest(items: Sequence[Item]) -> str:
    """Names a test set by what its scenes and questions say: 16 hexadecimal digits, the same on every platform."""
    text = json.dumps([_rounded(asdict(item)) for item in items], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS) + 0.0  # no negative zero
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value


@dataclass(frozen=True)
class Chance:
    """What a family's questions can be guessed at: `majority` by always giving one answer, `options` by choosing among
    the answers that the question, or the scene, leaves open; `majority_answer` is that one answer.
    """

    num_questions: int
    majority: float
    majority_answer: str
    options: float

    @property
    def level(self) -> float:
        """The better of the two."""
        return max(self.majority, self.options)


def chances(items: Sequence[Item]) -> dict[BenchmarkFamily, Chance]:
    """By family, of those that are asked."""
    asked: dict[BenchmarkFamily, list[BenchmarkQuestion]] = defaultdict(list)
    for item in items:
        for question in item.questions:
            asked[question.family].append(question)
    found = {}
    for family in BenchmarkFamily:
        questions = asked[family]
        if questions:
            answer, most = Counter(question.answer for question in questions).most_common(1)[0]
            options = sum(1 / len(question.options) for question in questions) / len(questions)
            found[family] = Chance(len(questions), most / len(questions), answer, options)
    return found
