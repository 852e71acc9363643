"""What a stream draws: every row as often as it weighs, in an order of the seed alone, from wherever it was stopped."""

import json
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pytest

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.training.annotations import Example, Source
from sfvqa.training.options import FineTuning, Stage
from sfvqa.training.shards import Streamed
from sfvqa.training.stream import RowsOnDisk, Stream, streamed_sources
from tests.training.shard_files import write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Source a: 2 shards of 3 rows and 2 of 2; source b: a shard of 3 rows. Those of odd numbers have a video."""
    rows = []
    for number in range(13):
        said = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": f"{number}."}]
        rows.append({"id": str(number), "conversations": said} | ({"video": f"{number}.mp4"} if number % 2 else {}))
        (tmp_path / f"{number}.mp4").write_bytes(b"film %d" % number)
    for name, part in (("a0", rows[:3]), ("a1", rows[3:6]), ("a2", rows[6:8]), ("a3", rows[8:10]), ("b", rows[10:])):
        write_tar(tmp_path / f"{name}.tar", part, tmp_path)
    return tmp_path


def stream(
    folder: Path, *names: str, process: tuple[int, int] = (0, 1), state: dict[str, Any] | None = None, **options: Any
) -> Stream:
    chosen = FineTuning(num_steps=1, shuffle_rows=options.pop("shuffle_rows", 4), **options)
    sources = streamed_sources([Source.parse(str(folder / name)) for name in names], chosen)
    rows = RowsOnDisk(folder / "disk" / str(process[0]), folder)
    return Stream(sources, rows, chosen, process=process, state=json.loads(json.dumps(state)))


def num_rows(example: Example) -> int:
    return 1 + (example.name == "4")


def drawn(one: Stream, count: int) -> list[str]:
    return [f"{each.example.name}.{each.number}" for each in islice(one.draw(num_rows), count)]


ROWS = [f"{number}.{part}" for number in range(13) for part in range(1 + (number == 4))]


@pytest.mark.parametrize("shuffle_rows", [1, 4, 100])
def test_each_epoch_has_every_row_once(folder: Path, shuffle_rows: int) -> None:
    order = drawn(stream(folder, "a*.tar", "b.tar", shuffle_rows=shuffle_rows), 3 * len(ROWS))
    epochs = [order[start : start + len(ROWS)] for start in range(0, len(order), len(ROWS))]
    assert all(sorted(epoch) == sorted(ROWS) for epoch in epochs)
    assert (epochs[0] != epochs[1]) == (shuffle_rows > 1)
    assert order == drawn(stream(folder, "a*.tar", "b.tar", shuffle_rows=shuffle_rows), 3 * len(ROWS))
    other = drawn(stream(folder, "a*.tar", "b.tar", shuffle_rows=shuffle_rows, seed=1), len(ROWS))
    assert (other != epochs[0]) == (shuffle_rows > 1)


def test_without_shuffling_sources_take_turns_in_the_order_of_their_shards(folder: Path) -> None:
    order = drawn(stream(folder, "a*.tar", "b.tar", shuffle_rows=1), len(ROWS))
    assert order == [
        "0.0",
        "10.0",
        "1.0",
        "11.0",
        "2.0",
        "12.0",
        "3.0",
        "4.0",
        "4.1",
        "5.0",
        "6.0",
        "7.0",
        "8.0",
        "9.0",
    ]


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_an_epoch(folder: Path, num_processes: int) -> None:
    """Two share the four shards of one source, and the rows of the other; three share the rows of both."""
    shares = []
    for number in range(num_processes):
        one = stream(folder, "a*.tar", "b.tar", process=(number, num_processes))
        epochs = [each for each in islice(one.draw(num_rows), 40) if each.epoch == 0]
        shares.append([f"{each.example.name}.{each.number}" for each in epochs])
    assert sorted(chain.from_iterable(shares)) == sorted(ROWS)
    assert min(map(len, shares)) >= len(ROWS) // num_processes - 2


def test_weights_are_how_often_a_row_comes_in_an_epoch(folder: Path) -> None:
    one = stream(folder, "a*.tar:0.5", "b.tar:2")
    epochs: dict[int, list[str]] = {}
    for each in islice(one.draw(num_rows), 60):
        epochs.setdefault(each.epoch, []).append(each.example.name)
    first, second = Counter(epochs[0]), Counter(epochs[1])
    assert first == second  # the same half of the rows, drawn once
    assert [first[str(number)] for number in (10, 11, 12)] == [2, 2, 2]
    assert 1 <= len([name for name in first if int(name) < 10]) <= 9


@pytest.mark.parametrize("process", [(0, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("shuffle_rows", [1, 4, 100])
def test_a_stream_goes_on_behind_any_row(folder: Path, process: tuple[int, int], shuffle_rows: int) -> None:
    def start(state: dict[str, Any] | None = None) -> Stream:
        sources = ("a*.tar:1.5", "b.tar")
        return stream(folder, *sources, process=process, state=state, shuffle_rows=shuffle_rows, stage=Stage.ALL)

    whole = drawn(start(), 40)
    for stop in range(0, 30, 1 if shuffle_rows == 4 else 7):
        one = start()
        for each in islice(one.draw(num_rows), stop + 3):  # three are read ahead
            last = each.place
        one.learned(last - 3)
        assert drawn(start(one.state), 40 - stop) == whole[stop:], stop


def test_videos_lie_on_disk_until_they_were_learned_from(folder: Path) -> None:
    one, most = stream(folder, "a*.tar", "b.tar"), 0
    for each in islice(one.draw(num_rows), 60):
        video = each.example.video
        assert (video is not None) == int(each.example.name) % 2
        if video is not None:
            assert video.read_bytes() == b"film %d" % int(each.example.name)
        most = max(most, len(list((folder / "disk" / "0").iterdir())))
        one.learned(each.place - 2)
    assert most <= 4 + 2
    one.learned(60)
    one.close()
    assert not (folder / "disk").exists()


def test_a_resumed_stream_leaves_no_video_of_rows_that_were_learned_from(folder: Path) -> None:
    one = stream(folder, "a*.tar", shuffle_rows=100)
    places = [each.place for each in islice(one.draw(num_rows), 9)]
    one.learned(places[-1])
    one.close()
    again = stream(folder, "a*.tar", shuffle_rows=100, state=one.state)
    assert len(list(islice(again.draw(num_rows), 1))) == 1
    assert len(list((folder / "disk" / "0").iterdir())) <= 2  # of eleven rows


def test_stage_1_draws_videos_alone_and_says_so_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    order = drawn(stream(folder, "a*.tar", "b.tar", stage=Stage.BRIDGE), 24)
    assert sorted(order[:6]) == ["1.0", "11.0", "3.0", "5.0", "7.0", "9.0"]
    assert caplog.text.count("Stage 1 leaves out rows without a video") == 1


def test_a_faulty_row_is_an_error_when_it_comes(folder: Path) -> None:
    (folder / "bad.tar").write_bytes((folder / "a0.tar").read_bytes()[: 6 * 512 + 100])
    one = stream(folder, "bad.tar", shuffle_rows=1)
    with pytest.raises(UsageError, match=r"bad\.tar: It cannot be read behind row \d: "):
        drawn(one, 9)


def test_a_disk_without_room_is_no_fault_of_the_row(folder: Path) -> None:
    (folder / "disk").write_text("in the way")
    with pytest.raises(SfvqaError, match=r"The video of Sample 2 \(1\) of .*a0\.tar cannot be laid in"):
        drawn(stream(folder, "a0.tar"), 9)


def test_more_processes_than_rows_are_an_error(folder: Path) -> None:
    with pytest.raises(UsageError, match="no rows"):
        drawn(stream(folder, "b.tar", process=(3, 5)), 1)
    with pytest.raises(UsageError, match="no rows"):  # of which a dry run knew nothing to say
        stream(folder, "b.tar", process=(3, 5)).first_block()


def test_an_option_of_streams_has_no_effect_without_one(folder: Path) -> None:
    with pytest.raises(UsageError, match="shuffle_rows has no effect"):
        streamed_sources([Source(folder / "rows.json")], FineTuning(num_steps=1, shuffle_rows=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"A stream has no length, so that num_epochs says no number of steps\. Give num_steps\."),
        ({"num_steps": 1, "group_by_length": True}, "cannot be grouped by length"),
        ({"num_steps": 1, "validation": "0.1"}, "No share of a stream can be held out"),
    ],
)
def test_what_needs_all_rows_beforehand_is_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        streamed_sources([Source(folder / "a0.tar")], FineTuning(**options))
    (folder / "rows.json").write_text("[]")
    assert streamed_sources([Source(folder / "rows.json")], FineTuning(**options)) == []


def test_files_beside_a_stream_are_streamed_too(folder: Path) -> None:
    said = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "This."}]
    (folder / "rows.json").write_text(json.dumps([{"id": "f", "conversations": said, "start": 1}]))
    found = streamed_sources([Source(folder / "rows.json", 2), Source(folder / "b.tar")], FineTuning(num_steps=1))
    assert [type(each) for each in found] == [Streamed, Streamed]
    order = drawn(stream(folder, "rows.json:2", "b.tar", shuffle_rows=1), 5)
    assert order == ["f.0", "10.0", "f.0", "11.0", "12.0"]
