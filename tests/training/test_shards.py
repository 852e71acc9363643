"""Shards, wherever they lie and however they are broken: the same rows as a file of conversations has, or a fault."""

import functools
import gc
import http.server
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pytest

from sfvqa.errors import UsageError
from sfvqa.training import shards
from sfvqa.training.annotations import Example, Fault, Source, read_annotations, read_row
from sfvqa.training.shards import ShardRow, Streamed, is_streamed
from tests.training.shard_files import dataset_of, members_of, write_members, write_tar


def conversation(number: int) -> dict[str, Any]:
    said = [{"from": "human", "value": f"<video>\nWhat is {number}?"}, {"from": "gpt", "value": f"{number}."}]
    return {"id": f"id {number}", "video": f"{number}.mp4", "conversations": said}


ROWS = [conversation(number) for number in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six videos, which nobody opens here, and a file of conversations about them."""
    for number in range(6):
        (tmp_path / f"{number}.mp4").write_bytes(f"video {number}".encode() * 100)
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return tmp_path


def rows_of(name: str | Path) -> list[ShardRow]:
    return [row for shard in Streamed.of(Source.parse(str(name))).shards for row in shard.rows()]


def examples_of(name: str | Path) -> list[Example | Fault]:
    shown = [([name for name, _ in row.shown], row) for row in rows_of(name)]
    return [read_row(row.place, row.row, Path("videos"), names)[0] for names, row in shown]


def fault_of(name: str | Path) -> str:
    """The only one."""
    [fault] = [made for made in examples_of(name) if isinstance(made, Fault)]
    return f"{fault.place}: {fault.error.message}"


def save(folder: Path, form: str) -> str:
    """Two shards in a form, and what names them."""
    data = dataset_of(ROWS, folder)
    halves = [data.select(range(3)), data.select(range(3, 6))]
    if form == "tar":
        for number in range(2):
            write_tar(folder / f"train-{number:06d}.tar", ROWS[3 * number : 3 * number + 3], folder)
        return str(folder / "train-{000000..000001}.tar")
    if form == "saved":
        data.save_to_disk(folder / "saved", num_shards=2)
        return str(folder / "saved")
    if form == "saved with splits":
        datasets.DatasetDict(train=halves[0], held=data).save_to_disk(folder / "saved")
        return f"{folder / 'saved'}:held"
    where = folder / "data" if form == "parquet" else folder / "repository" / "data"
    where.mkdir(parents=True)
    for number, half in enumerate(halves):
        half.to_parquet(where / f"train-{number:05d}-of-00002.parquet")
    halves[0].to_parquet(where / "test-00000-of-00001.parquet")
    return str(where / "train-*.parquet") if form == "parquet" else str(folder / "repository")


@pytest.mark.parametrize("form", ["tar", "parquet", "saved", "saved with splits", "repository"])
def test_shards_in_every_form_hold_the_rows_of_a_file(folder: Path, form: str) -> None:
    name = save(folder, form)
    source = Source.parse(name)
    assert is_streamed(source)
    expected = read_annotations(folder / "rows.jsonl", Path("videos"))
    made = [one for one in examples_of(name) if isinstance(one, Example)]
    assert [(one.turns, one.video) for one in made] == [(one.turns, one.video) for one in expected]
    assert [row.shown for row in rows_of(name)] == [
        ((f"{number}.mp4", (folder / f"{number}.mp4").read_bytes()),) for number in range(6)
    ]
    fourth = {"tar": "Sample 1 (3)", "saved with splits": "Row 4 (id 3)"}.get(form, "Row 1 (id 3)")
    assert str(made[3].place).startswith(f"{fourth} of {folder}")


def test_a_file_of_conversations_is_a_shard_beside_others(folder: Path) -> None:
    name = folder / "rows.jsonl"
    assert not is_streamed(Source(name))
    assert examples_of(name) == read_annotations(name, Path("videos"))


def test_shards_are_read_from_a_web_server_as_from_disk(folder: Path) -> None:
    asked = Counter[str]()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            asked[self.path] += 1
            super().do_HEAD()

    save(folder, "tar")
    save(folder, "parquet")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        at = f"http://127.0.0.1:{server.server_port}"
        for name in ("train-{000000..000001}.tar", "data/train-0000{0..1}-of-00002.parquet"):
            assert [row.shown for row in rows_of(f"{at}/{name}:2")] == [row.shown for row in rows_of(folder / name)]
        with pytest.raises(UsageError, match=r"gone\.tar cannot be streamed"):
            rows_of(f"{at}/gone.tar")
        asked.clear()
        assert Streamed.of(Source(f"{at}/train-{{000000..000001}}.tar")).fingerprint
        assert asked == {"/train-000000.tar": 1, "/train-000001.tar": 1}
    finally:
        server.shutdown()


def test_a_column_may_hold_bytes_paths_and_nothing(tmp_path: Path) -> None:
    """As lists or alone, and keys of other rows are not there."""
    said = ROWS[0]["conversations"]
    text = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hi."}]
    rows = [
        {"videos": [{"bytes": b"film", "path": None}], "conversations": said, "system": None},
        {"videos": [{"bytes": None, "path": "there.mp4"}], "conversations": said},
        {"videos": None, "conversations": text},
        {"videos": [], "conversations": text, "system": "Be brief."},
        {"videos": [{"bytes": b"a", "path": "a.mp4"}, {"bytes": b"b", "path": "b.mp4"}], "conversations": said},
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    *made, fault = examples_of(tmp_path / "rows.parquet")
    assert [one.video for one in made if isinstance(one, Example)] == [
        Path("videos/videos"),
        Path("videos/there.mp4"),
        None,
        None,
    ]
    assert isinstance(made[3], Example)
    assert made[3].system == "Be brief."
    assert isinstance(fault, Fault)
    assert str(fault.place) == f"Row 5 of {tmp_path / 'rows.parquet'}"
    assert fault.error.message == "It shows 2 videos or images: a.mp4, b.mp4."


def test_no_row_is_held_when_the_next_one_comes(folder: Path) -> None:
    """Without a collector of cycles, which seldom runs where objects are few and large."""
    dataset_of(ROWS, folder).to_parquet(folder / "a.parquet")
    write_tar(folder / "a.tar", ROWS, folder)
    gc.collect()
    gc.disable()
    try:
        for name in ("a.parquet", "a.tar"):
            for shard in Streamed.of(Source(folder / name)).shards:
                for _ in shard.rows():
                    pass
            held = [each for each in gc.get_objects() if type(each) is tuple and len(each) == 2]
            assert not [each for each in held if isinstance(each[1], bytes) and each[1].startswith(b"video 0video")]
    finally:
        gc.enable()


def test_what_lies_beside_a_row_is_what_the_row_names(folder: Path) -> None:
    """By another name, in the parts of a turn, or not at all."""
    parts = [{"type": "video", "video": "elsewhere/9.mp4"}, {"type": "text", "text": "Why?"}]
    answer = {"role": "assistant", "content": "So."}
    rows = [
        {"messages": [{"role": "user", "content": parts}, answer]},
        {"image": "9.jpg", "messages": [{"role": "user", "content": "Why?"}, answer]},
        {"messages": [{"role": "user", "content": "<video>Why?"}, answer]},
    ]
    members = [(f"clips/{number}.MP4", b"film") for number in range(3)]
    told = [(f"clips/{number}.json", json.dumps(row).encode()) for number, row in enumerate(rows)]
    both = [member for pair in zip(members, told, strict=True) for member in pair]
    write_members(folder / "a.tar", both)
    made = examples_of(folder / "a.tar")
    assert [one.video for one in made if isinstance(one, Example)] == [
        Path(f"videos/clips/{number}.mp4") for number in range(3)
    ]


SAMPLE_BYTES = 5 * 512  # header and two blocks of video, header and a block of JSON


@pytest.mark.parametrize(
    ("size", "num_whole"),
    [
        pytest.param(2 * SAMPLE_BYTES + 600, 1, id="in a video"),
        pytest.param(2 * SAMPLE_BYTES + 100, 1, id="in a header"),
        pytest.param(2 * SAMPLE_BYTES, 1, id="before a header"),
        pytest.param(6 * SAMPLE_BYTES, 5, id="before its end"),
    ],
)
def test_an_archive_that_was_cut_is_a_fault(folder: Path, size: int, num_whole: int) -> None:
    """tarfile takes the last three for whole archives. Of the sample before the cut nobody knows if it was whole."""
    path = write_tar(folder / "a.tar", ROWS, folder)
    path.write_bytes(path.read_bytes()[:size])
    *whole, fault = rows_of(path)
    assert [row.place.name for row in whole] == [str(number) for number in range(num_whole)]
    assert str(fault.place) == str(path)
    assert isinstance(fault.row, UsageError)
    assert fault.row.message.startswith(f"It cannot be read behind row {num_whole}: ")


def test_a_parquet_file_that_was_cut_is_a_fault(folder: Path) -> None:
    path = folder / "a.parquet"
    dataset_of(ROWS, folder).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert fault_of(path).startswith(f"{path}: It cannot be read: ")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a/7.mp4", b"film")], "Sample 1 (a/7) of {}: It has mp4 and no JSON."),
        ([("7.json", b"{"), ("7.mp4", b"film")], "Sample 1 (7) of {}: It is not JSON: "),
        ([("7.json", b"[]")], "Sample 1 (7) of {}: It is not an object."),
        ([("7.x.json", b"{}"), ("7.y.json", b"{}")], "Sample 1 (7) of {}: It has 2 files of JSON."),
        (
            [("7.a.mp4", b""), ("7.b.mp4", b""), ("7.json", json.dumps(ROWS[0]).encode())],
            "Sample 1 (7) of {}: It shows 2 videos or images: 7.mp4, 7.mp4.",
        ),
        ([("7.json", b'{"messages": [], "messages": []}')], "Sample 1 (7) of {}: It has the key 'messages' twice."),
    ],
)
def test_what_is_wrong_with_a_sample_names_shard_and_key(
    folder: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    """And the samples behind it are read."""
    path = write_members(folder / "a.tar", [*members, *members_of(ROWS[1:2], folder)])
    assert fault_of(path).startswith(message.format(path))
    assert len(examples_of(path)) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("train-*.tar", "There are no shards .*train-"),
        ("train-{0..1}.tar", "train-{0..1}.tar cannot be streamed: .*No such file.*train-0.tar"),
        ("https://example.org/rows.csv", "neither a tar archive nor a parquet or Arrow file"),
        ("hf://nobody/nothing", "hf://nobody/nothing cannot be streamed: "),
        ("empty", "empty cannot be streamed: "),
        ("repository:val", r"has no split val: its splits are (train, test|test, train)\."),
    ],
)
def test_sources_that_are_none_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    save(folder, "repository")
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=message):
        rows_of(name)


def test_another_shard_or_size_is_another_fingerprint(folder: Path) -> None:
    def fingerprint() -> str:
        return Streamed.of(Source(folder / "*.tar")).fingerprint

    write_tar(folder / "a.tar", ROWS[:2], folder)
    before = fingerprint()
    (folder / "._a.tar").write_bytes(b"of a Mac")  # as in a shell, * means no hidden files
    assert fingerprint() == before
    write_tar(folder / "b.tar", ROWS[2:4], folder)
    more = fingerprint()
    write_tar(folder / "b.tar", ROWS[:9], folder)
    assert len({before, more, fingerprint()}) == 3


def test_what_reads_tables_is_named_where_it_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Archives need nothing more."""
    dataset_of(ROWS, folder).to_parquet(folder / "a.parquet")
    write_tar(folder / "a.tar", ROWS, folder)
    monkeypatch.setattr(shards, "find_spec", lambda _: None)
    assert len(examples_of(folder / "a.tar")) == 6
    [fault] = examples_of(folder / "a.parquet")
    assert isinstance(fault, Fault)
    assert 'pip install "sfvqa[train]"' in fault.error.remedy
