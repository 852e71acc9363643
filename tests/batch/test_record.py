"""Records say everything, survive being written and read, and files of them are read whatever happened to them."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sfvqa
from sfvqa.batch.item import Item, Question
from sfvqa.batch.journal import Journal
from sfvqa.batch.record import START, Failure, error_record, ok_record, parse_line, read_records, to_line
from sfvqa.errors import UsageError, VideoNotFoundError
from tests.batch.made import SETTINGS, answer_of, error_of, ok_of

NAMES = st.binary(min_size=1, max_size=20).map(os.fsdecode)


def test_an_answer_is_recorded_with_everything() -> None:
    item = Item(Path("clips/a.mp4"), "a.mp4", "Q?", "7", 1.5, None, ("yes", "no"), "no", "hard")
    answer = answer_of("yes", video="clips/a.mp4")
    record = json.loads(to_line(ok_record(Question(item, "0" * 24), answer, SETTINGS)))
    asked = answer.to_dict() | {"video": "a.mp4"}
    assert {name: record[name] for name in asked} == json.loads(json.dumps(asked))
    assert record["video_path"] == str(Path("clips/a.mp4").absolute())
    assert (record["status"], record["item_id"], record["id"]) == ("ok", "0" * 24, "7")
    assert (record["answer_expected"], record["group"]) == ("no", "hard")
    assert record["requested"] == {**SETTINGS, "start_seconds": 1.5, "choices": ["yes", "no"]}
    assert record["versions"].keys() == {"sfvqa", "torch", "transformers", "av", "python"}
    assert (record["versions"]["sfvqa"], record["host"]) == (sfvqa.__version__, os.uname().nodename)
    assert "error" not in record


def test_an_error_is_recorded_with_its_kind_and_what_to_do() -> None:
    item = Item(Path("a.mp4"), "a.mp4", "Q?")
    record = error_record(Question(item, "0" * 24), Failure.of(VideoNotFoundError("It is gone.", "Copy it.")), SETTINGS)
    assert (record["status"], record["error"]) == (
        "error",
        {"type": "VideoNotFoundError", "message": "It is gone. Copy it."},
    )
    assert (record["schema_version"], record["video"], record["requested"]) == (1, "a.mp4", SETTINGS)
    assert "answer" not in record


def test_an_error_that_nobody_raised_on_purpose_brings_its_traceback() -> None:
    try:
        raise ValueError("odd\n  shape" + "!" * 9999)
    except ValueError as error:
        described = error_record(Question(Item(Path("a"), "a", "Q?"), "0" * 24), Failure.of(error), {})["error"]
    assert described["type"] == "ValueError"
    assert described["message"].startswith("ValueError: odd shape!!!")
    assert len(described["message"]) < 600
    assert "test_record.py" in described["traceback"]


@given(NAMES)
def test_any_name_of_a_file_survives(name: str) -> None:
    r"""Newlines, quotes, and bytes that are not UTF-8: a line stays a line, and names are what they were."""
    line = to_line(ok_of(0) | {"video": name})
    assert line.count(b"\n") == 1
    assert line.isascii()
    record = parse_line(line)
    assert record is not None
    assert os.fsencode(record["video"]) == os.fsencode(name)


def test_both_kinds_of_record_begin_as_half_of_one_is_known() -> None:
    assert all(to_line(record).startswith(START) for record in (ok_of(0), error_of(0)))


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"[]", b'"ok"', b'{"item_id": "a"}', b'{"item_id": 1, "status": "ok"}', b"\xff", b"9" * 5000,
     b'{"item_id": "a", "status": "running"}', b"[" * 100_000, b'{"item_id": "a", "status": ["ok"]}', b"\0" * 90],
)  # fmt: skip
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert parse_line(line) is None


def test_a_file_is_read_past_what_is_torn_and_damaged(tmp_path: Path) -> None:
    lines = [to_line(ok_of(0)), b"\0\0\0\n", b"\r\n", to_line(error_of(1)), to_line(ok_of(2))[:50]]
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"".join(lines))
    notices: list[str] = []
    assert [record["id"] for record in read_records(path, notices)] == ["own-0", "own-1"]
    assert notices == [f"Skipped 2 torn or damaged lines of “{path}”: 2, 5."]


@pytest.mark.parametrize("has_end", [True, False])
def test_a_line_without_end_is_passed_over_and_not_held(has_end: bool, tmp_path: Path) -> None:
    """A crash left 400 MB without a newline, and to report on the other records took more than twice as much memory."""
    path = tmp_path / "out.jsonl"
    first, last = to_line(ok_of(0)), to_line(ok_of(1))
    with path.open("wb") as file:
        file.write(first + first[:50])
        file.truncate(200 << 20)  # null bytes that take no room on the disk
    with path.open("ab") as file:
        file.write(b"\n" + last if has_end else b"")
    notices: list[str] = []
    tracemalloc.start()
    found = [record["id"] for record in read_records(path, notices)]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == (["own-0", "own-1"] if has_end else ["own-0"])
    assert "1 torn or damaged line" in notices[0]
    assert most < 100 << 20
    with Journal(path) as journal:
        assert list(journal.done.values()) == ["ok"] * len(found)
    assert path.stat().st_size == ((200 << 20) + 1 + len(last) if has_end else len(first))


def test_of_many_damaged_lines_ten_are_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(to_line(ok_of(0)) + b"x\n" * 12)
    notices: list[str] = []
    assert len(list(read_records(path, notices))) == 1
    assert "2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more" in notices[0]


@pytest.mark.parametrize("content", [b"", to_line(ok_of(0))[:1], to_line(ok_of(0))[:700]])
def test_an_empty_file_and_the_beginning_of_a_first_record_hold_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    assert list(read_records(path)) == []


@pytest.mark.parametrize(
    "content",
    [b"video,question\na.mp4,Q?\n", b"{}\n", b'{"schema_version": 1, "video": "a"}', b"\0" * 3_000_000, b"video",
     b'{"video": "a.mp4", "question": "Q?"}\n', b"\n" * 2_000_000 + to_line(ok_of(0))],
)  # fmt: skip
def test_another_file_is_told_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is not a file of records"):
        list(read_records(path))


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        list(read_records(tmp_path / "absent.jsonl"))
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        list(read_records(tmp_path))
