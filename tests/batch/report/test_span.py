"""From when to when, and without which pauses."""

from typing import Any

import pytest

from sfvqa.batch.report.facts import ItemFacts, RunFacts
from sfvqa.batch.report.summary import measure_span, summarise
from tests.batch.report.records import failed, ok


def at(time: str, *, answered: bool = True) -> ItemFacts:
    """An item that took 1.375 s, or failed at once."""
    finished = f"2026-11-25T{time}+00:00"
    return RunFacts().add(ok(finished=finished) if answered else failed(finished=finished))


def test_it_runs_from_the_start_of_the_first_item_to_the_end_of_the_last() -> None:
    span = measure_span([at("01:00:10"), at("01:00:01.375"), at("01:01:00", answered=False)])
    assert span is not None
    assert span.ended - span.began == span.active_seconds == pytest.approx(60)


def test_a_first_batch_began_with_its_first_video() -> None:
    """Four answers come at once, to which each video added 0.75 s and all together 0.625 s."""
    first = [{**ok(finished="2026-11-25T01:00:00+00:00")} for _ in range(4)]
    for record in first:
        record["timings"] = {**record["timings"], "asked_together": 4}
    span = measure_span([RunFacts().add(record) for record in first])
    assert span is not None
    assert span.active_seconds == pytest.approx(4 * 0.75 + 0.625)


def test_a_night_between_two_items_is_a_pause() -> None:
    span = measure_span([at("00:00:01.375"), at("00:00:11.375"), at("09:00:00"), at("09:05:00")])
    assert span is not None
    assert span.num_pauses == 1
    assert span.active_seconds == pytest.approx(11.375 + 1.375 + 300)


def test_a_long_item_is_none() -> None:
    long: dict[str, Any] = ok(finished="2026-11-25T02:00:00+00:00")
    long["timings"]["total_seconds"] = 3600.0
    span = measure_span([at("01:00:00"), RunFacts().add(long)])
    assert span is not None
    assert span.num_pauses == 0


@pytest.mark.parametrize("finished", ["", "yesterday", "2026-13-01", 5, None])
def test_records_that_tell_no_time_have_no_span(finished: object) -> None:
    assert measure_span([RunFacts().add({**ok(), "finished": finished})]) is None


def test_one_error_alone_has_no_rate() -> None:
    run = RunFacts()
    run.add(failed(finished="2026-11-25T01:00:00+00:00"))
    summary = summarise(run)
    assert summary.span is not None
    assert set(summary.rates.values()) == {None}
