"""What shards wrote becomes one file: no item lost, none double, nothing half written."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfvqa.batch import journal as journal_module
from sfvqa.batch.journal import Journal
from sfvqa.batch.merge import merge_records
from sfvqa.batch.record import Record, read_records, to_line
from sfvqa.errors import JournalError, UsageError
from tests.batch.made import error_of, id_of, ok_of
from tests.batch.unprivileged import unprivileged_folder
from tests.windows import as_on_windows, needs_modes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def part(folder: Path, name: str, *records: Record, torn: bytes = b"") -> Path:
    path = folder / name
    path.write_bytes(b"".join(map(to_line, records)) + torn)
    return path


def at(record: Record, time: str) -> Record:
    return record | {"finished": f"2026-01-01T00:00:{time}.000+00:00"}


def test_shards_are_joined_as_they_are(folder: Path) -> None:
    records = [ok_of(0), error_of(1), ok_of(2)]
    parts = [part(folder, "1", *records[:2]), part(folder, "2", records[2]), part(folder, "3")]
    merged = merge_records(parts, folder / "all.jsonl")
    assert (folder / "all.jsonl").read_bytes() == b"".join(map(to_line, records))
    assert (len(merged.best), merged.num_ok, merged.num_repeated, merged.num_superseded) == (3, 2, 0, 0)
    assert (merged.conflicts, merged.notices) == ({}, [])
    assert sorted(file.name for file in folder.iterdir()) == ["1", "2", "3", "all.jsonl"]


def test_an_answer_wins_over_errors_and_the_newest_error_over_others(folder: Path) -> None:
    first = part(folder, "1", at(error_of(0), "09"), at(error_of(1, "New."), "05"), ok_of(2))
    second = part(folder, "2", ok_of(0), at(error_of(1, "Old."), "01"), at(error_of(2), "59"), at(error_of(3), "01"))
    third = part(folder, "3", at(error_of(3, "Newest."), "02"))
    merged = merge_records([first, second, third], folder / "all")
    found = list(read_records(folder / "all"))
    assert [(record["item_id"], record["status"]) for record in found] == [
        (id_of(0), "ok"), (id_of(1), "error"), (id_of(2), "ok"), (id_of(3), "error"),
    ]  # fmt: skip
    assert [found[place]["error"]["message"] for place in (1, 3)] == ["New. Copy it again.", "Newest. Copy it again."]
    assert (len(merged.best), merged.num_ok, merged.num_superseded) == (4, 2, 4)


def test_equal_answers_are_dropped_and_different_ones_told(folder: Path) -> None:
    first = part(folder, "1", ok_of(0, "Left."), ok_of(1, "Up."))
    second = part(folder, "2", ok_of(0, "Left.") | {"host": "other"}, ok_of(1, "Down."))
    merged = merge_records([first, second, first], folder / "all")
    assert (folder / "all").read_bytes() == first.read_bytes()
    assert (merged.num_repeated, list(merged.conflicts)) == (3, [id_of(1)])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 4), st.sampled_from(["Left.", "Right.", None]), st.integers(10, 59)), max_size=6
        ),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_parts_hold_there_is_one_record_an_item_the_best(
    tmp_path: Path, parts: list[list[tuple[int, str | None, int]]]
) -> None:
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    made = [[at(ok_of(n, said) if said else error_of(n), str(time)) for n, said, time in lines] for lines in parts]
    flat = [record for records in made for record in records]
    merge_records([part(folder, str(place), *records) for place, records in enumerate(made)], folder / "all")
    merged = {record["item_id"]: record for record in read_records(folder / "all")}
    assert list(merged) == list(dict.fromkeys(record["item_id"] for record in flat))
    for item_id, record in merged.items():
        of_item = [other for other in flat if other["item_id"] == item_id]
        answered = [other for other in of_item if other["status"] == "ok"]
        if answered:
            assert record == answered[0]
        else:
            assert record["finished"] == max(other["finished"] for other in of_item)
    assert len(list(read_records(folder / "all"))) == len(merged)


def test_torn_and_damaged_lines_are_left_out_and_told(folder: Path) -> None:
    first = part(folder, "1", ok_of(0), torn=to_line(ok_of(1))[:60])
    second = part(folder, "2", ok_of(2), torn=to_line(ok_of(3))[:-1])
    merged = merge_records([first, second], folder / "all")
    assert merged.notices == [f"Skipped 1 torn or damaged line of “{first}”: 2."]
    assert [record["item_id"] for record in read_records(folder / "all")] == [id_of(0), id_of(2), id_of(3)]
    assert (folder / "all").read_bytes().endswith(b"}\n")


def test_what_is_there_is_not_overwritten_unless_asked(folder: Path) -> None:
    shard, output = part(folder, "1", ok_of(0)), part(folder, "all.jsonl", ok_of(7))
    before = output.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        merge_records([shard], output)
    assert output.read_bytes() == before
    merged = merge_records([shard], output, overwrite=True)
    assert output.read_bytes() == shard.read_bytes()
    assert (folder / "all.jsonl.old").read_bytes() == before
    assert "all.jsonl.old" in merged.notices[0]


def test_the_output_may_be_one_of_the_parts(folder: Path) -> None:
    output, shard = part(folder, "all", ok_of(0)), part(folder, "1", ok_of(1))
    merge_records([output, shard], output, overwrite=True)
    assert [record["item_id"] for record in read_records(output)] == [id_of(0), id_of(1)]


def test_an_old_output_that_is_a_part_moves_aside_on_windows_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_windows(monkeypatch, journal_module)
    output, shard = part(folder, "all", ok_of(0)), part(folder, "1", ok_of(1))
    merge_records([output, shard], output, overwrite=True)
    assert [record["item_id"] for record in read_records(output)] == [id_of(0), id_of(1)]
    assert sorted(file.name for file in folder.iterdir()) == ["1", "all", "all.old"]


def test_an_output_that_a_batch_is_writing_to_is_left_alone(folder: Path) -> None:
    shard = part(folder, "1", ok_of(0))
    with Journal(folder / "all") as journal:
        journal.append(ok_of(7))
        with pytest.raises(JournalError, match="Another process is writing"):
            merge_records([shard], folder / "all", overwrite=True)
    assert sorted(file.name for file in folder.iterdir()) == ["1", "all"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_merge_that_fails_leaves_nothing_half_written(
    error: BaseException, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, output = part(folder, "1", ok_of(0)), part(folder, "all", ok_of(7))
    before = output.read_bytes()

    def fail(_descriptor: int) -> None:
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError if isinstance(error, OSError) else KeyboardInterrupt):
        merge_records([shard], output, overwrite=True)
    assert output.read_bytes() == before
    assert sorted(file.name for file in folder.iterdir()) == ["1", "all"]


def test_parts_that_cannot_be_merged(folder: Path) -> None:
    shard = part(folder, "1", ok_of(0))
    (folder / "list.csv").write_text("video,question\n")
    for other, problem in (("list.csv", "is not a file of records"), ("absent", "cannot be read: No such file")):
        with pytest.raises(UsageError, match=problem):
            merge_records([shard, folder / other], folder / "all")
    assert not (folder / "all").exists()
    with pytest.raises(UsageError, match="is not a file of records"):
        merge_records([shard], folder / "list.csv", overwrite=True)
    assert sorted(file.name for file in folder.iterdir()) == ["1", "list.csv"]


def test_a_part_that_changes_meanwhile_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = part(folder, "1", ok_of(0), ok_of(1))

    def change(path: Path) -> Path:
        part(folder, "1", ok_of(1), ok_of(0))
        return path

    monkeypatch.setattr("sfvqa.batch.merge.real_path", change)
    with pytest.raises(JournalError, match="was changed while it was read"):
        merge_records([shard], folder / "all")
    assert not (folder / "all").exists()


@pytest.mark.parametrize("output", ["-", "/dev/null"])
def test_only_a_file_can_be_written_whole(output: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="is not a regular file"):
        merge_records([part(folder, "1", ok_of(0))], Path(output), overwrite=True)


@needs_modes
def test_where_nothing_can_be_written_it_is_said() -> None:
    with unprivileged_folder() as locked:
        shard = part(locked, "1", ok_of(0))
        (locked / "in").mkdir(mode=0o500)
        with pytest.raises(JournalError, match=r"“.*all” cannot be written: Permission denied"):
            merge_records([shard], locked / "in" / "all")


def test_what_is_merged_is_a_journal_to_go_on_with(folder: Path) -> None:
    shards = [part(folder, "1", error_of(0)), part(folder, "2", ok_of(0), ok_of(1))]
    merge_records(shards, folder / "all")
    with Journal(folder / "all") as journal:
        assert (journal.done, journal.notices) == ({id_of(0): "ok", id_of(1): "ok"}, [])
    assert all(json.loads(line)["status"] == "ok" for line in (folder / "all").read_text().splitlines())
