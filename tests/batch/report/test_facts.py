"""Facts of records: what a sum may rely on, and that no record, however strange, breaks a report."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfvqa.batch.report.cards import gather_cards
from sfvqa.batch.report.exports import write_csv
from sfvqa.batch.report.facts import RunFacts, number, warning_kind
from sfvqa.evaluation.matching import Rule
from sfvqa.evaluation.scores import Verdict
from tests.batch.report.records import failed, item, ok

NAMES = (
    "video", "video_path", "question", "answer", "answer_expected", "group", "id", "requested", "timings", "tokens",
    "frames", "warnings", "error", "settings", "versions", "choices", "finished", "host", "model", "revision",
)  # fmt: skip
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)


@settings(suppress_health_check=[HealthCheck.too_slow])  # its table of characters is made first
@given(st.dictionaries(st.sampled_from(NAMES), JSON), st.sampled_from(["ok", "error"]))
def test_no_record_is_too_strange(values: dict[str, Any], status: str) -> None:
    record = {**values, "item_id": "0", "status": status}
    facts = RunFacts().add(record)
    assert (facts.failure is None) == (status == "ok")
    assert all(seconds >= 0 for seconds in (facts.seconds.stages if facts.seconds else ()))
    (card,) = gather_cards([record], Rule.PHRASE)
    (items,) = card.views.values()
    assert len(items) == 1
    assert write_csv([record], _Nowhere(), Rule.PHRASE) == 1  # type: ignore[arg-type]


def test_what_an_answer_tells() -> None:
    facts = RunFacts(num_records=7).add(ok(item(answer="left", group="motion"), "Left."))
    assert facts.seconds is not None
    assert facts.seconds.stages == (0.25, 0.5, 0.125, 0.5)
    assert (facts.ordinal, facts.video, facts.new_tokens, facts.failure) == (7, "shapes.mp4", 6, None)
    assert facts.label is not None
    assert (facts.label.verdict, facts.label.group) == (Verdict.RIGHT, "motion")


def test_an_error_has_no_times_and_is_not_right() -> None:
    facts = RunFacts().add(failed(item(answer="left")))
    assert facts.failure is not None
    assert facts.failure.kind == "UnreadableVideoError"
    assert facts.seconds is None
    assert facts.label is not None
    assert facts.label.verdict is Verdict.FAILED


def test_an_error_about_a_file_that_was_missing_gives_way_to_the_answer() -> None:
    """The id of an item depends on the file's content; once the file was there, it was counted as a second item."""
    run = RunFacts()
    records = [
        failed(content="unreadable"),
        failed(item(question="Why?"), content="unreadable"),
        failed(settings={"model": "other"}, content="unreadable"),
        failed(content="truncated"),
        ok(),
    ]
    for record in records:
        run.add(record)
    assert list(run.items) == [records[place]["item_id"] for place in (1, 2, 4)]
    assert [facts.failure is None for facts in run.items.values()] == [False, False, True]


def test_answers_that_are_not_wrong_are_kept_only_when_they_are_wanted() -> None:
    """A million long answers need not be in memory for figures."""
    records = [ok(item(answer="left"), "left"), ok(item("b", answer="left"), "up"), ok(item("c"), "up")]
    assert [RunFacts().add(record).answer for record in records] == [None, "up", None]
    assert [RunFacts(keeps_answers=True).add(record).answer for record in records] == ["left", "up", "up"]
    assert RunFacts(keeps_answers=True).add(failed()).answer is None


@pytest.mark.parametrize("value", [None, "1", True, -1, float("inf"), float("nan"), 1e300, [1]])
def test_a_strange_number_is_none(value: object) -> None:
    assert number(value) is None


def test_warnings_are_alike_but_for_names_and_numbers() -> None:
    one, other = "“a 1.mp4” ends at 1:05.3, of 2 s", "“b.mkv” ends at 10, of 31.5 s"
    assert warning_kind(one) == warning_kind(other)
    assert warning_kind(one) != warning_kind("“a.mp4” begins at 1, of 2 s")


def test_equal_setups_are_held_once() -> None:
    """A million records have few of them."""
    run = RunFacts()
    one, other = run.add(ok(item("a.mp4"))), run.add(ok(item("b.mp4")))
    assert one.setup is other.setup
    assert one.question is other.question
