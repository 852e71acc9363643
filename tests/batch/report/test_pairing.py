"""Which items of two runs belong together, and that no item gets a partner that may be another's."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest

from sfvqa.batch.record import Record
from sfvqa.batch.report.facts import ItemFacts, RunFacts
from sfvqa.batch.report.pairing import _LIKENESSES, Pairing, pair_items
from tests.batch.report.records import failed, item, ok

OTHER, THIRD = {"num_frames": 8}, {"num_frames": 16}


def run_of(records: Iterable[Record]) -> RunFacts:
    run = RunFacts()
    for record in records:
        run.add(record)
    return run


def paired(new: Iterable[Record], old: Iterable[Record]) -> Pairing:
    return pair_items(run_of(new), run_of(old))


def left_out(pairing: Pairing) -> tuple[int, int, int]:
    return pairing.only_in_new, pairing.only_in_old, pairing.num_unclear


def test_settings_do_not_matter_and_the_order_is_that_of_the_new_run() -> None:
    new = [ok(item(name)) for name in ("b", "a", "c")]
    old = [ok(item("a"), settings=OTHER), failed(item("b"), settings=OTHER), ok(item("d"), settings=OTHER)]
    pairing = paired(new, old)
    assert pairing.pairs == ((new[0]["item_id"], old[1]["item_id"]), (new[1]["item_id"], old[0]["item_id"]))
    assert left_out(pairing) == (1, 1, 0)
    assert pairing.renamed == {}


@pytest.mark.parametrize(
    "other",
    [
        {"question": "Other?"},
        {"start_seconds": 1.0},
        {"end_seconds": 1.0},
        {"choices": ("left", "right")},
    ],
)
def test_what_is_asked_matters(other: dict[str, Any]) -> None:
    pairing = paired([ok(item())], [ok(item(**other))])
    assert (pairing.pairs, left_out(pairing)) == ((), (1, 1, 0))


def test_windows_of_a_video_are_paired_one_by_one() -> None:
    windows = [item(start_seconds=2.0 * place, end_seconds=2.0 * place + 2, is_window=True) for place in range(3)]
    pairing = paired([ok(window) for window in windows], [ok(window, settings=OTHER) for window in windows[1:]])
    assert (len(pairing.pairs), left_out(pairing)) == (2, (1, 0, 0))


def test_the_ids_of_a_manifest_tell_questions_apart_that_are_asked_twice() -> None:
    new = [ok(item(own_id=own_id)) for own_id in ("1", "2")]
    old = [ok(item(own_id=own_id), settings=OTHER) for own_id in ("2", "1")]
    assert paired(new, old).pairs == tuple(
        (one["item_id"], other["item_id"]) for one, other in zip(new, reversed(old), strict=True)
    )


def test_one_run_may_have_ids_and_the_other_none() -> None:
    assert len(paired([ok(item(own_id="7"))], [ok(item(), settings=OTHER)]).pairs) == 1


def test_among_several_settings_only_equal_ones_are_paired() -> None:
    """With what was left over, 8 frames would be compared with 16, and 4 with 4, in the same figures."""
    new = [ok(), ok(settings=OTHER)]
    pairing = paired(new, [ok(), ok(settings=THIRD)])
    assert pairing.pairs == ((new[0]["item_id"], new[0]["item_id"]),)
    assert left_out(pairing) == (0, 0, 2)
    assert left_out(paired(new, [ok(settings=THIRD)])) == (0, 0, 3)


def test_videos_that_have_moved_are_known_by_their_file_names() -> None:
    pairing = paired([ok(item("a/x.mp4")), ok(item("y.mp4"))], [ok(item("C:\\b\\x.mp4")), ok(item("y.mp4"))])
    assert len(pairing.pairs) == 2
    assert pairing.renamed == {"a/x.mp4": "C:\\b\\x.mp4"}


def test_a_file_name_of_two_videos_says_nothing() -> None:
    """The b/x.mp4 of the new run is not c/x.mp4 just because the other x.mp4 has its partner."""
    pairing = paired([ok(item("a/x.mp4")), ok(item("b/x.mp4"))], [ok(item("a/x.mp4")), ok(item("c/x.mp4"))])
    assert (len(pairing.pairs), left_out(pairing), pairing.renamed) == (1, (0, 0, 2), {})
    other_questions = paired([ok(item("a/x.mp4", "Why?")), ok(item("b/x.mp4"))], [ok(item("c/x.mp4"))])
    assert (other_questions.pairs, left_out(other_questions)) == ((), (1, 0, 2))


@pytest.mark.parametrize(("folder", "num_passes"), [("", 2), ("old/", 5)])
def test_a_file_of_many_has_few_steps(folder: str, num_passes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over each file for each likeness, and no more, until every item that can have a partner has one."""
    looked_at = 0

    def counted(likeness: Callable[[ItemFacts], Hashable]) -> Callable[[ItemFacts], Hashable]:
        def count(of: ItemFacts) -> Hashable:
            nonlocal looked_at
            looked_at += 1
            return likeness(of)

        return count

    monkeypatch.setattr("sfvqa.batch.report.pairing._LIKENESSES", tuple(map(counted, _LIKENESSES)))
    new = [ok(item(f"{number}.mp4")) for number in range(30)]
    old = [ok(item(f"{folder}{number}.mp4"), settings=OTHER) for number in range(30)]
    pairing = paired(new, old)
    assert (len(pairing.pairs), len(pairing.renamed), left_out(pairing)) == (30, 30 if folder else 0, (0, 0, 0))
    assert looked_at == num_passes * (len(new) + len(old))
