"""What stands out among the answers about a video's windows, in exact numbers."""

import math

import pytest

from sfvqa.errors import UsageError
from sfvqa.inference.moments import (
    Calibration,
    FindOptions,
    Look,
    log_odds,
    merge_into_moments,
    question_about,
    ranges_to_see_closer,
    replaced_by_closer,
)


def look(start: float, odds: float, length: float = 8.0) -> Look:
    return Look(start, start + length, odds, start + length / 4, int(start * 10), is_looked_at=True)


def every_eight_seconds(*odds: float) -> list[Look]:
    return [look(8.0 * place, each) for place, each in enumerate(odds)]


def test_a_model_that_says_yes_to_everything_finds_nothing() -> None:
    """The very same answers, but for how ready the model is to say yes."""
    shy = every_eight_seconds(*[-9.0] * 50, 4.0, *[-9.0] * 50)
    eager = [look(each.start_seconds, each.log_odds + 11) for each in shy[:50] + shy[51:]] + [look(400.0, 4.0)]
    found = merge_into_moments(shy, Calibration.of(shy), FindOptions())
    assert [(moment.start_seconds, moment.end_seconds) for moment in found] == [(400.0, 408.0)]
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(-4.0)))  # as likely as it says, not likelier
    assert merge_into_moments(eager, Calibration.of(eager), FindOptions()) == []


def test_what_stands_out_of_eager_answers_has_to_stand_out_by_the_number_of_windows() -> None:
    """Of 101 windows one is expected to show it: the odds against each are a hundred to one."""
    calibration = Calibration(101, 2.0, 0.5)
    assert calibration.probability(2.0 + math.log(100)) == pytest.approx(0.5)
    assert calibration.probability(2.0) == pytest.approx(1 / 101)


def test_of_one_or_two_windows_the_model_s_word_counts() -> None:
    for looks in (every_eight_seconds(3.0), every_eight_seconds(3.0, 3.0)):
        calibration = Calibration.of(looks)
        assert calibration.probability(3.0) == pytest.approx(1 / (1 + math.exp(-3.0)))
        assert all(map(calibration.stands_out, looks))


def test_log_odds_are_against_all_else_and_never_infinite() -> None:
    assert log_odds(math.log(0.8)) == pytest.approx(math.log(4))
    assert (log_odds(0.0), log_odds(1e-9), log_odds(-math.inf)) == (30.0, 30.0, -30.0)


def test_windows_that_touch_or_overlap_are_one_moment_and_the_likeliest_comes_first() -> None:
    calibration = Calibration(50, -9.0, 0.5)
    looks = [
        look(30.0, 2.0, 2.0), look(20.0, 3.0, 2.0), look(21.0, 5.0, 2.0), look(23.0, 1.0, 2.0),
        look(25.1, -1.0, 2.0), look(40.0, 4.0, 2.0),
    ]  # fmt: skip
    moments = merge_into_moments(looks, calibration, FindOptions())
    spans = [(moment.start_seconds, moment.end_seconds, moment.best_seconds) for moment in moments]
    assert spans == [(20.0, 25.0, 21.5), (40.0, 42.0, 40.5), (30.0, 32.0, 30.5)]
    assert [moment.best_index for moment in moments] == [210, 400, 300]
    assert merge_into_moments(looks, calibration, FindOptions(top=1)) == moments[:1]
    stricter = merge_into_moments(looks, calibration, FindOptions(threshold=0.97))
    assert [(moment.start_seconds, moment.end_seconds) for moment in stricter] == [(21.0, 23.0), (40.0, 42.0)]


def test_a_long_window_over_a_short_one_keeps_its_end() -> None:
    looks = [look(0.0, 2.0, 8.0), look(2.0, 2.0, 2.0), look(7.0, 2.0, 2.0)]
    (moment,) = merge_into_moments(looks, Calibration(50, -9.0, 0.5), FindOptions())
    assert (moment.start_seconds, moment.end_seconds) == (0.0, 9.0)


def test_only_what_stands_out_is_seen_closer_with_a_margin() -> None:
    looks = every_eight_seconds(*[-9.0] * 10, -4.0, *[-9.0] * 5, 3.0, 3.0, *[-9.0] * 10)
    calibration = Calibration.of(looks)
    assert ranges_to_see_closer(looks, calibration, margin_seconds=2.0, within=(0.0, 224.0)) == [
        (78.0, 90.0),
        (126.0, 146.0),
    ]


def test_margins_stay_within_what_is_searched() -> None:
    looks = every_eight_seconds(3.0, *[-9.0] * 10, 3.0)
    ranges = ranges_to_see_closer(looks, Calibration.of(looks), margin_seconds=2.0, within=(1.0, 95.0))
    assert ranges == [(1.0, 10.0), (86.0, 95.0)]


def test_no_more_than_8_percent_are_read_again_and_the_likeliest_first() -> None:
    """Otherwise a model that finds everything remarkable would read everything twice."""
    num_windows = 1000
    looks = every_eight_seconds(*[3.0 + place / 1000 if place % 4 == 0 else -9.0 for place in range(num_windows)])
    ranges = ranges_to_see_closer(looks, Calibration.of(looks), margin_seconds=2.0, within=(0.0, 8000.0))
    assert 628 < sum(end - start for start, end in ranges) <= 640
    assert ranges[-1] == (7966.0, 7978.0)
    short = every_eight_seconds(*[3.0] * 4)
    assert ranges_to_see_closer(short, Calibration(2, 3.0, 0.5), margin_seconds=2.0, within=(0.0, 32.0)) == [(0, 32)]


def test_a_closer_look_takes_the_place_of_those_it_covers_alone() -> None:
    """What would have been too much to read again stays as it was seen."""
    looks = every_eight_seconds(1.0, 2.0, 3.0)
    closer = [look(6.0, -9.0, 2.0)]
    assert replaced_by_closer(looks, closer) == [looks[0], looks[1], looks[2], *closer]
    closer = [look(8.0, -9.0, 2.0), look(9.0, -9.0, 4.0), look(10.0, -9.0, 1.0)]
    assert replaced_by_closer(looks, closer) == [looks[0], looks[2], *closer]


def test_one_window_is_always_seen_closer_however_long_it_is() -> None:
    looks = [look(600.0 * place, 5.0 if place == 3 else -9.0, 600.0) for place in range(6)]
    ranges = ranges_to_see_closer(looks, Calibration.of(looks), margin_seconds=150.0, within=(0.0, 3600.0))
    assert ranges == [(1650.0, 2550.0)]


def test_the_level_that_counts_is_where_the_probability_is_the_threshold() -> None:
    for calibration in (Calibration(101, 6.0, 1.0), Calibration(101, -9.0, 1.0), Calibration(2, 6.0, 1.0)):
        assert calibration.probability(calibration.log_odds_at(0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("a red star", "Does the video show a red star?"),
        (" A person falls. ", "Does the video show A person falls?"),
        ("Does anyone fall?", "Does anyone fall?"),
    ],
)
def test_a_question_is_asked_as_it_is(text: str, question: str) -> None:
    assert question_about(text) == question


@pytest.mark.parametrize(
    "options", [{"every_seconds": 0.0}, {"every_seconds": math.nan}, {"threshold": 1.1}, {"threshold": 0.0}, {"top": 0}]
)
def test_options_that_find_nothing_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        FindOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="empty"):
        question_about(" ")
