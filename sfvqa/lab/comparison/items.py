"""Items of the benchmark: a scene with its questions, drawn by number, its frames, and what guessing would reach."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sfvqa.lab.comparison.questions import BenchmarkFamily, BenchmarkQuestion, ask_all
from sfvqa.lab.comparison.scenes import BenchmarkScene, Burst, Plate, Sign, random_scene
from sfvqa.lab.tiny.render import DIGIT_STROKES, RGB, blend_shape, blend_strokes, shape_distance
from sfvqa.lab.tiny.scenes import STEPS, Colour, Direction, draw_backdrop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sfvqa.lab.comparison.scenes import Timeline

    Floats = NDArray[np.float32]
    Times = NDArray[np.float64]


BENCHMARK = 2_000_003  # tiny's scenes are drawn from other seeds
TRAINING, TESTING = 0, 1
DECIMALS = 6  # of a digest's numbers
LETTER_STROKES: dict[str, list[list[tuple[float, float]]]] = {
    "A": [[(-0.52, 0.82), (0.0, -0.82), (0.52, 0.82)], [(-0.3, 0.3), (0.3, 0.3)]],
    "E": [[(0.45, -0.82), (-0.4, -0.82), (-0.4, 0.82), (0.45, 0.82)], [(-0.4, 0.0), (0.32, 0.0)]],
    "H": [[(-0.45, -0.82), (-0.45, 0.82)], [(0.45, -0.82), (0.45, 0.82)], [(-0.45, 0.0), (0.45, 0.0)]],
    "L": [[(-0.4, -0.82), (-0.4, 0.82), (0.45, 0.82)]],
    "N": [[(-0.45, 0.82), (-0.45, -0.82), (0.45, 0.82), (0.45, -0.82)]],
    "T": [[(-0.52, -0.82), (0.52, -0.82)], [(0.0, -0.82), (0.0, 0.82)]],
    "X": [[(-0.5, -0.82), (0.5, 0.82)], [(0.5, -0.82), (-0.5, 0.82)]],
    "Y": [[(-0.5, -0.82), (0.0, 0.0), (0.5, -0.82)], [(0.0, 0.0), (0.0, 0.82)]],
}
STROKES = {str(digit): lines for digit, lines in DIGIT_STROKES.items()} | LETTER_STROKES
RING_HALF_WIDTH, RING_MIDDLE, GAP_HALF_WIDTH = 0.2, 0.74, 0.32  # in radii
GLYPH_RADIUS, RING_RADIUS = 0.72, 0.66  # in radii of the plate
PULSE_WIDTH = 0.05  # of the frame


def render(scene: BenchmarkScene, size: int, times: Times | None = None) -> NDArray[np.uint8]:
    """Frames [T, size, size, 3] uint8 RGB of `scene` at `times` [T] in seconds (default: every moment)."""
    shades = render_float(scene, size, scene.timeline.seconds if times is None else times) * 255.0 + 0.5
    return np.asarray(np.clip(shades, 0, 255), dtype=np.uint8)


def render_float(scene: BenchmarkScene, size: int, times: Times) -> Floats:
    """The same, float32 from 0 to about 1."""
    sway = scene.camera.offsets(times)
    frames = draw_backdrop(scene.pattern, scene.shots, size, times, sway)
    if scene.flash is not None:
        frames[scene.flash.span.holds(times)] = RGB[scene.flash.colour]
    for mover in scene.movers:
        visible = np.flatnonzero(times >= mover.appears_at)
        places = mover.positions(times[visible]) + sway[visible]
        distance = partial(shape_distance, mover.shape)
        blend_shape(frames, distance, RGB[mover.colour], mover.radius, visible, places)
    for burst in scene.bursts:
        for plate in burst.plates:
            visible = np.flatnonzero(plate.span.holds(times))
            _draw_plate(frames, burst, plate, visible, np.asarray(burst.centre) + sway[visible])
    edge = max(1, round(PULSE_WIDTH * size))
    for pulse in scene.pulses:
        lit = np.flatnonzero(pulse.holds(times))
        for part in (np.s_[lit, :edge], np.s_[lit, -edge:], np.s_[lit, :, :edge], np.s_[lit, :, -edge:]):
            frames[part] = RGB[Colour.WHITE]
    frames *= scene.camera.gains(times).astype(np.float32)[:, None, None, None]
    return frames


def _draw_plate(
    frames: Floats, burst: Burst, plate: Plate, visible: NDArray[np.intp], places: NDArray[np.float64]
) -> None:
    blend_shape(frames, _disc, RGB[plate.colour], burst.radius, visible, places)
    if burst.sign is Sign.RING:
        opened = partial(_ring_distance, STEPS[Direction(plate.text)])
        blend_shape(frames, opened, RGB[Colour.WHITE], RING_RADIUS * burst.radius, visible, places)
        return
    for frame, (x, y) in zip(visible, places, strict=True):
        blend_strokes(frames, STROKES[plate.text], GLYPH_RADIUS * burst.radius, (float(x), float(y)), np.array([frame]))


def _disc(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.sqrt(x * x + y * y) - np.float32(1.0), dtype=np.float32)


def _ring_distance(gap: tuple[float, float], x: Floats, y: Floats) -> Floats:
    right, down = gap
    band = np.abs(np.sqrt(x * x + y * y) - np.float32(RING_MIDDLE)) - np.float32(RING_HALF_WIDTH)
    along, across = x * right + y * down, np.abs(x * down - y * right)
    opening = np.maximum(across - np.float32(GAP_HALF_WIDTH), -along)
    return np.asarray(np.maximum(band, -opening), dtype=np.float32)


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
