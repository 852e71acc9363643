"""Benchmark scenes: fixed by their number, free of collisions, and each event seen by exactly the frames it says."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from sfvqa.lab.comparison.items import TESTING, TRAINING, Item, chances, digest, draw_item, fixed_test_set, render
from sfvqa.lab.comparison.questions import BenchmarkFamily, Skill, ask, told_of
from sfvqa.lab.comparison.scenes import DIGITS, LETTERS, SIDES, BenchmarkScene, Sign, Span, Timeline
from sfvqa.lab.tiny.render import RGB, compress
from sfvqa.lab.tiny.scenes import Colour


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return fixed_test_set(150)


def test_the_fixed_test_set_is_pinned(items: list[Item]) -> None:
    """A change of what is drawn makes another benchmark, whose results cannot be compared."""
    assert digest(items[:20]) == "95809c7f3bcd7b08"


def test_a_hash_tells_sets_apart_and_ignores_rounding(items: list[Item]) -> None:
    scene = items[0].scene
    camera = replace(scene.camera, exposure=scene.camera.exposure + 1e-12)
    assert digest([replace(items[0], scene=replace(scene, camera=camera))]) == digest(items[:1])
    camera = replace(scene.camera, exposure=scene.camera.exposure + 1e-3)
    assert digest([replace(items[0], scene=replace(scene, camera=camera))]) != digest(items[:1])


def test_training_and_testing_never_share_a_scene() -> None:
    assert draw_item(TRAINING, 0, 0) == draw_item(TRAINING, 0, 0)
    drawn = [draw_item(TRAINING, 0, 0), draw_item(TRAINING, 1, 0), draw_item(TRAINING, 0, 1), draw_item(TESTING, 0, 0)]
    for one, other in combinations(drawn, 2):
        assert one.scene != other.scene


def test_what_is_shown_stays_inside_and_apart(items: list[Item]) -> None:
    for scene in (item.scene for item in items):
        times = scene.timeline.seconds
        for mover in scene.movers:
            path = mover.positions(times)
            assert mover.radius < path.min() < path.max() < 1 - mover.radius
        for one, other in combinations(scene.movers, 2):
            apart = np.hypot(*(one.positions(times) - other.positions(times)).T)
            assert apart.min() > one.radius + other.radius
        for burst in scene.bursts:
            shown = times[burst.span.holds(times)]
            for mover in scene.movers:
                visible = shown[shown >= mover.appears_at]
                apart = np.hypot(*(mover.positions(visible) - burst.centre).T)
                assert len(apart) == 0 or apart.min() > mover.radius + burst.radius


def test_a_burst_shows_every_plate_for_two_moments_without_a_break(items: list[Item]) -> None:
    """64 frames show each plate once, and an average over four frames mixes several."""
    signs = set()
    for burst in (burst for item in items for burst in item.scene.bursts):
        seconds = items[0].scene.timeline.seconds
        assert [int(plate.span.holds(seconds).sum()) for plate in burst.plates] == [2, 2, 2, 2]
        assert int(burst.span.holds(seconds).sum()) == 8
        assert len({plate.colour for plate in burst.plates}) == 4
        assert len({plate.text for plate in burst.plates}) == 4
        assert {plate.text for plate in burst.plates} <= set(
            {Sign.DIGIT: DIGITS, Sign.LETTER: LETTERS, Sign.RING: SIDES}[burst.sign]
        )
        signs.add(burst.sign)
    assert signs == set(Sign)


@pytest.mark.parametrize(("num_moments", "seconds"), [(128, 10.0), (64, 3.0), (256, 60.0)])
def test_a_flash_lasts_one_moment_of_the_densest_sampling(num_moments: int, seconds: float) -> None:
    timeline = Timeline(seconds, num_moments)
    seen, of_16 = [], []
    for number in range(60):
        scene = draw_item(TESTING, 0, number, timeline).scene
        if scene.flash is not None:
            shown = scene.flash.span.holds(timeline.seconds)
            seen.append(int(shown.sum()))
            of_16.append(bool(shown[timeline.sampled(16)].any()))
    assert seen
    assert set(seen) == {1}
    assert np.mean(of_16) < 2.5 * 16 / num_moments


def test_short_events_do_not_share_a_moment(items: list[Item]) -> None:
    for scene in (item.scene for item in items):
        spans: list[Span] = [burst.span for burst in scene.bursts] + list(scene.pulses)
        spans += [scene.flash.span] if scene.flash else []
        for one, other in combinations(spans, 2):
            assert one.is_apart_from(other, 2 * scene.timeline.step_seconds)
        for span in spans:
            assert span.holds(scene.timeline.seconds).any()


def test_the_flash_is_what_the_frames_show(items: list[Item]) -> None:
    scene = next(item.scene for item in items if item.scene.flash is not None)
    assert scene.flash is not None
    frames = render(scene, 32).astype(float) / 255
    colour = np.asarray(RGB[scene.flash.colour])
    away = np.abs(frames / scene.camera.gains(scene.timeline.seconds)[:, None, None, None] - colour).sum(-1)
    share = (away < 0.1).mean(axis=(1, 2))
    assert share.argmax() == np.flatnonzero(scene.flash.span.holds(scene.timeline.seconds))[0]
    assert share.max() > 0.5


def test_compression_changes_pixels_but_not_what_is_seen(items: list[Item]) -> None:
    frames = render(items[0].scene, 64, items[0].scene.timeline.seconds[:24])
    fine, coarse = compress(frames, quality=10), compress(frames, quality=40)
    lost = [np.abs(read.astype(float) - frames).mean() for read in (fine, coarse)]
    assert 0 < lost[0] < lost[1] < 20


def test_answers_are_balanced_and_nothing_can_be_guessed_well(items: list[Item]) -> None:
    found = chances(items)
    assert set(found) == set(BenchmarkFamily)
    assert {family.skill for family in found} == set(Skill)
    for family, chance in found.items():
        assert chance.num_questions >= 30, family
        assert chance.level <= 0.5, family
        assert chance.majority < 1.8 * max(chance.options, 0.1) + 0.05, family


def scene_with(items: list[Item], family: BenchmarkFamily) -> BenchmarkScene:
    return next(item.scene for item in items if any(question.family is family for question in item.questions))


def test_near_ties_are_not_asked(items: list[Item]) -> None:
    rng = np.random.default_rng(0)
    scene = scene_with(items, BenchmarkFamily.ORDER)
    together = replace(scene, movers=tuple(replace(m, appears_at=0.01 * n) for n, m in enumerate(scene.movers)))
    assert ask(rng, together, BenchmarkFamily.ORDER) is None
    scene = scene_with(items, BenchmarkFamily.SPEED)
    alike = tuple(replace(m, start=(0.2, 0.5), end=(0.7 + 0.05 * n, 0.5)) for n, m in enumerate(scene.movers))
    alike = tuple(replace(m, moving=Span(1.0, 5.0)) for m in alike)
    assert ask(rng, replace(scene, movers=alike), BenchmarkFamily.SPEED) is None


def test_the_digit_asked_for_is_the_one_of_that_half(items: list[Item]) -> None:
    """Recomputed from the paths: where the named object is in the middle of the answer's digit."""
    asked = 0
    for item in items:
        for question in item.questions:
            if question.family is BenchmarkFamily.DIGIT_AT:
                mover = next(mover for mover in item.scene.movers if mover.shape in question.text)
                plates = [plate for burst in item.scene.bursts_of(Sign.DIGIT) for plate in burst.plates]
                plate = next(plate for plate in plates if question.answer.endswith(told_of(plate.colour, plate)))
                assert f"the {plate.colour} plate" in question.text
                middle = np.array([(plate.span.start + plate.span.end) / 2])
                height = mover.positions(middle)[0, 1]
                assert (height < 0.5) == ("at the top" in question.text)
                asked += 1
    assert asked > 20


def test_digits_and_letters_have_strokes() -> None:
    from sfvqa.lab.comparison.items import STROKES

    assert set(STROKES) == set(DIGITS + LETTERS)
    assert Colour.WHITE in RGB


@pytest.mark.parametrize("timeline", [Timeline(), Timeline(4.0, 48)])
def test_telling_moments_show_every_event_and_stay_in_order(timeline: Timeline) -> None:
    """Evenly spaced ones miss most flashes: nobody could learn from those what a flash looks like."""
    scenes = [draw_item(TRAINING, 0, number, timeline).scene for number in range(60)]
    assert max(len(scene.events) for scene in scenes) >= 6
    for scene in scenes:
        moments = scene.telling_moments(24)
        assert len(moments) == 24
        assert (moments[1:] >= moments[:-1]).all()
        for span in scene.events:
            assert span.holds(timeline.seconds[moments]).any()
    assert not all(span.holds(timeline.seconds[timeline.sampled(24)]).any() for s in scenes for span in s.events)
