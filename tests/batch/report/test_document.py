"""What `--json` prints is JSON, whatever the records say."""

import json
from pathlib import Path

import pytest

from sfvqa.batch.report.against import compare_runs
from sfvqa.batch.report.exports import summary_document
from sfvqa.batch.report.facts import collect
from sfvqa.batch.report.summary import summarise
from tests.batch.report.records import failed, item, ok, write


def test_numbers_that_json_has_not_become_text(tmp_path: Path) -> None:
    path = write(tmp_path / "out.jsonl", [ok(settings={"model": "tiny", "top_p": "X"})])
    path.write_bytes(path.read_bytes().replace(b'"X"', b"NaN").replace(b"1.375", b"Infinity"))
    document = json.loads(json.dumps(summary_document(summarise(collect(path))), allow_nan=False))
    assert document["settings"][0]["requested"]["top_p"] == "NaN"
    assert document["slowest"][0]["total_seconds"] == pytest.approx(0.25 + 0.5 + 0.125 + 0.5)


def test_rates_and_times(tmp_path: Path) -> None:
    moments = ("2026-11-25T01:00:01.375+00:00", "2026-11-25T01:01:00+00:00")
    records = [ok(item("a"), finished=moments[0]), failed(item("b"), finished=moments[1])]
    time = summary_document(summarise(collect(write(tmp_path / "out.jsonl", records))))["time"]
    assert time == {
        "began": "2026-11-25T01:00:00+00:00",
        "ended": "2026-11-25T01:01:00+00:00",
        "active_seconds": pytest.approx(60),
        "pauses": 0,
        "items_per_minute": pytest.approx(2),
        "videos_per_minute": pytest.approx(2),
        "tokens_per_second": pytest.approx(0.1),
    }


def test_items_that_no_partner_is_sure_for_are_counted(tmp_path: Path) -> None:
    """They stood there as repeated, which they are not."""
    new, old = (
        collect(write(tmp_path / f"{name}.jsonl", records), keeps_answers=True)
        for name, records in {
            "new": [ok(settings={"num_frames": 4}), ok(settings={"num_frames": 8})],
            "old": [ok(settings={"num_frames": 16}), ok(item("other"))],
        }.items()
    )
    comparison = summary_document(summarise(new), compare_runs(new, old))["comparison"]
    assert (comparison["partner_unclear"], comparison["only_in_new"], comparison["only_in_old"]) == (3, 0, 1)
    assert "repeated" not in comparison
