"""Which record of an item counts, and what is told of a damaged file."""

from pathlib import Path

import pytest

from sfvqa.batch.record import to_line
from sfvqa.batch.report.facts import collect, last_records
from sfvqa.errors import UsageError
from tests.batch.report.records import failed, item, ok, write


def test_the_last_record_of_an_item_counts(tmp_path: Path) -> None:
    a, b = item("a.mp4"), item("b.mp4")
    run = collect(write(tmp_path / "out.jsonl", [failed(a), failed(b), ok(a), failed(b)]))
    assert [(facts.video, facts.failure is None) for facts in run.items.values()] == [("a.mp4", True), ("b.mp4", False)]
    assert run.num_records == 4
    assert [(record["video"], record["status"]) for record in last_records(run)] == [
        ("a.mp4", "ok"),
        ("b.mp4", "error"),
    ]


def test_torn_and_damaged_lines_are_told_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    lines = [to_line(ok(item(name))) for name in ("a", "b", "c")]
    path.write_bytes(lines[0] + b"\x00\xff damaged\n" + lines[1] + b"[1]\n\n" + lines[2][:50])
    run = collect(path)
    assert [facts.video for facts in run.items.values()] == ["a", "b"]
    (notice,) = run.notices
    assert "2, 4, 6" in notice
    assert len(list(last_records(run))) == 2


def test_what_is_appended_meanwhile_does_not_appear(tmp_path: Path) -> None:
    """Figures and table are of the same moment."""
    path = write(tmp_path / "out.jsonl", [ok(item("a"))])
    run = collect(path)
    with path.open("ab") as stream:
        stream.write(to_line(ok(item("b"))) + to_line(failed(item("a"))))
    assert [(record["video"], record["status"]) for record in last_records(run)] == [("a", "ok")]


def test_an_empty_file_has_nothing(tmp_path: Path) -> None:
    run = collect(write(tmp_path / "out.jsonl", []))
    assert (run.items, run.num_records) == ({}, 0)


def test_a_file_that_is_none_of_records_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello\n", encoding="utf-8")
    with pytest.raises(UsageError):
        collect(path)
    with pytest.raises(UsageError):
        collect(tmp_path / "absent.jsonl")
