"""Scenes hold only what can be told for certain, and their frames show what they say."""

import numpy as np
import pytest

from sfvqa.lab.tiny.render import RGB, render
from sfvqa.lab.tiny.scenes import (
    NUM_FRAMES,
    Backdrop,
    Camera,
    Colour,
    DigitCard,
    Direction,
    Flash,
    Pattern,
    Place,
    Scene,
    SceneObject,
    Shape,
    Shot,
    random_scene,
)

DARK = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
TIMES = np.arange(NUM_FRAMES, dtype=np.float64)


def scenes(count: int = 60) -> list[Scene]:
    rng = np.random.default_rng(11)
    return [random_scene(rng) for _ in range(count)]


def test_objects_stay_in_the_frame_and_apart_and_move_as_they_say() -> None:
    for scene in scenes():
        assert 1 <= len(scene.objects) <= 4
        for number, item in enumerate(scene.objects):
            path = item.positions(TIMES)
            assert path.min() > item.radius
            assert path.max() < 1 - item.radius
            dx, dy = np.subtract(item.end, item.start)
            expected = {
                Direction.LEFT: dx < -0.25 and dy == 0,
                Direction.RIGHT: dx > 0.25 and dy == 0,
                Direction.UP: dy < -0.25 and dx == 0,
                Direction.DOWN: dy > 0.25 and dx == 0,
                Direction.STILL: dx == dy == 0,
            }
            assert expected[item.direction], item
            for other in scene.objects[:number]:
                apart = np.hypot(*(path - other.positions(TIMES)).T)
                assert apart.min() > item.radius + other.radius


def test_colours_differ_within_a_scene_and_appearances_are_well_apart() -> None:
    in_order = 0
    for scene in scenes():
        assert len({item.colour for item in scene.objects}) == len(scene.objects)
        if scene.has_order:
            in_order += 1
            gaps = np.diff(sorted(item.appears_at for item in scene.objects))
            assert gaps.min() >= 4
            assert min(item.appears_at for item in scene.objects) == 0
    assert in_order > 5


def test_flash_and_digit_never_share_a_frame_and_fall_everywhere() -> None:
    flashes, digits = [], []
    for scene in scenes(600):
        if scene.flash is not None:
            flashes.append(scene.flash.frame)
        if scene.digit is not None:
            assert 1 <= scene.digit.num_frames <= 2
            assert scene.digit.frame + scene.digit.num_frames <= NUM_FRAMES
            digits.append(scene.digit.frame)
            if scene.flash is not None:
                shown = range(scene.digit.frame, scene.digit.frame + scene.digit.num_frames)
                assert scene.flash.frame not in shown
    assert set(flashes) == set(range(NUM_FRAMES))
    assert set(digits) == set(range(NUM_FRAMES - 1))


def test_most_scenes_have_a_backdrop_of_every_kind_and_some_none() -> None:
    backdrops = [scene.backdrop for scene in scenes(200)]
    present = [backdrop for backdrop in backdrops if backdrop is not None]
    assert 130 < len(present) < 170
    assert {backdrop.pattern for backdrop in present} == set(Pattern)
    assert {len(backdrop.shots) for backdrop in present} == {1, 2, 3}
    assert all(0 < shot.start < NUM_FRAMES - 1 for backdrop in present for shot in backdrop.shots[1:])


def test_a_cut_changes_all_of_the_backdrop_and_nothing_before_it() -> None:
    still = Camera((0.0, 0.0), 0.0, 10.0, 0.0)
    shots = tuple(
        Shot(at, (tone, tone), 3.0, (0.0, 0.0), (0.0, 0.0)) for at, tone in ((0.0, (0.1,) * 3), (9.5, (0.4,) * 3))
    )
    frames = render(Scene((), DARK, backdrop=Backdrop(Pattern.CHECKS, shots, still)), 32)
    levels = [float(frame.mean()) for frame in frames]
    assert levels[:10] == [pytest.approx(26, abs=1)] * 10
    assert levels[10:] == [pytest.approx(102, abs=1)] * (NUM_FRAMES - 10)


def test_two_objects_of_one_shape_are_refused() -> None:
    item = SceneObject(Shape.STAR, Colour.RED, 0.1, Direction.STILL, (0.3, 0.3), (0.3, 0.3))
    with pytest.raises(ValueError, match="different shapes"):
        Scene((item, item), DARK)


@pytest.mark.parametrize(
    ("end", "place"),
    [((0.2, 0.2), Place.TOP_LEFT), ((0.8, 0.75), Place.BOTTOM_RIGHT), ((0.52, 0.5), Place.MIDDLE), ((0.5, 0.2), None)],
)
def test_final_place_is_named_only_where_it_is_clear(end: tuple[float, float], place: Place | None) -> None:
    item = SceneObject(Shape.STAR, Colour.RED, 0.1, Direction.STILL, end, end)
    assert item.final_place is place


@pytest.mark.parametrize("shape", list(Shape))
@pytest.mark.parametrize("size", [64, 150])
def test_an_object_is_drawn_in_its_colour_where_it_is_from_when_it_appears(shape: Shape, size: int) -> None:
    item = SceneObject(shape, Colour.ORANGE, 0.12, Direction.RIGHT, (0.2, 0.3), (0.7, 0.3), 8.0)
    frames = render(Scene((item,), DARK), size)
    assert frames.shape == (NUM_FRAMES, size, size, 3)
    assert np.ptp(frames[:8].astype(int)) <= 1  # rounding of the background
    orange = np.round(np.array(RGB[Colour.ORANGE]) * 255)
    for frame, x in ((8, 0.2), (31, 0.7)):
        covered = np.argwhere(np.abs(frames[frame] - orange).max(axis=-1) <= 1)
        assert len(covered) > 0.012 * size * size
        assert np.abs(covered.mean(axis=0) / size - (0.3, x)).max() < 0.03


def test_flash_and_digit_are_drawn_for_their_frames_only() -> None:
    still = render(Scene((), DARK), 64)
    both = render(Scene((), DARK, Flash(Colour.BLUE, 5), DigitCard(4, 9, 2, (0.5, 0.5))), 64)
    changed = np.flatnonzero((still != both).any(axis=(1, 2, 3)))
    assert changed.tolist() == [5, 9, 10]
    assert (both[5] == np.round(np.array(RGB[Colour.BLUE]) * 255)).all()


def test_the_ten_digits_look_different() -> None:
    drawn = [render(Scene((), DARK, None, DigitCard(d, 0, 1, (0.5, 0.5))), 64)[0].astype(int) for d in range(10)]
    for a in range(10):
        for b in range(a):
            assert (np.abs(drawn[a] - drawn[b]).max(axis=-1) > 100).sum() > 12, (a, b)


def test_the_same_seed_gives_the_same_video() -> None:
    first, second = (render(random_scene(np.random.default_rng(5)), 64) for _ in range(2))
    assert (first == second).all()
    assert (render(random_scene(np.random.default_rng(6)), 64) != first).any()
