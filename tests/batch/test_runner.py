"""The runner: every item gets its record, whatever happens to the others, and nothing is done twice."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sfvqa import Answer, EncodedVideo
from sfvqa.batch import reading_pool, runner
from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.tally import ItemFinished, Stage
from sfvqa.batch.video_ahead import VideoAhead
from sfvqa.errors import DeviceLostError, ExitCode, JournalError, OutOfMemoryError, ReadingMemoryError
from sfvqa.inference.reading_ahead import Reading
from sfvqa.video import ReadOptions, SamplingOptions, VideoReader, open_video
from tests.batch.answerer import FakeAnswerer
from tests.batch.conftest import HERE, RunBatch, items_of

OPTIONS = BatchOptions(reading=HERE, settings={"model": "scripted"})


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    threads = threading.active_count()
    yield
    assert threading.active_count() == threads


def by_question(records: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(record["video"], record["question"]): record for record in records}


def test_every_item_has_its_record(items: list[Item], run_items: RunBatch) -> None:
    answerer = FakeAnswerer()
    events, summary, records = run_items(answerer, items, OPTIONS)
    assert sorted(record["answer"] for record in records) == [
        f"{item.name}: {item.question} ({count} frames)"
        for item, count in zip(items, [4, 4, 12, 12, 20, 20, 28, 28], strict=True)
        for _ in [0]
    ]
    assert {record["status"] for record in records} == {"ok"}
    assert {record["requested"]["model"] for record in records} == {"scripted"}
    assert (summary.num_answered, summary.num_failed, summary.num_left) == (8, 0, 0)
    assert summary.exit_code is ExitCode.OK
    assert [event.record for event in events if isinstance(event, ItemFinished)] == records


def test_a_video_is_seen_once_for_all_its_questions(items: list[Item], run_items: RunBatch) -> None:
    answerer = FakeAnswerer()
    _, _, records = run_items(answerer, items[::2] + items[1::2], OPTIONS)
    assert Counter(answerer.seen) == Counter(["a.mp4", "b.mp4", "c.mp4", "d.mp4"])
    assert len(records) == 8


def test_ranges_of_a_video_are_seen_apart(video_folder: Path, run_items: RunBatch) -> None:
    item = Item(video_folder / "d.mp4", "d.mp4", "What moves?")
    later = replace(item, start_seconds=1.0, end_seconds=1.95)
    answerer = FakeAnswerer()
    _, _, records = run_items(answerer, [item, later], OPTIONS)
    assert answerer.seen == ["d.mp4", "d.mp4"]
    assert {record["frames"]["count"] for record in records} == {28, 10}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batches_are_as_large_as_they_may_be(video_folder: Path, run_items: RunBatch, batch_size: int) -> None:
    items = items_of(video_folder, "a", [f"Question {number}?" for number in range(5)])
    answerer = FakeAnswerer()
    _, _, records = run_items(answerer, items, replace(OPTIONS, batch_size=batch_size))
    assert max(map(len, answerer.batches)) == min(batch_size, 5)
    assert len(records) == 5


def when_all_are_read(monkeypatch: pytest.MonkeyPatch, num_videos: int) -> Callable[[str, int], None]:
    """For `on_chunk`: the model sees nothing until every video is read, so that none is waited for."""
    num_read = threading.Semaphore(0)
    feed = VideoAhead.feed

    def count(video: VideoAhead, chunks: Reading) -> None:
        feed(video, chunks)
        num_read.release()

    def wait(_name: str, _num_wanted: int) -> None:
        if not waited:
            waited.extend(num_read.acquire(timeout=60) for _ in range(num_videos))

    waited: list[bool] = []
    monkeypatch.setattr(VideoAhead, "feed", count)
    return wait


def test_short_videos_are_answered_in_one_batch(
    video_folder: Path, run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [Item(video_folder / "c.mp4", f"{number}.mp4", f"Question {number}?") for number in range(5)]
    answerer = FakeAnswerer(on_chunk=when_all_are_read(monkeypatch, 5))
    _, _, records = run_items(answerer, items, replace(OPTIONS, batch_size=3))
    assert [len(batch) for batch in answerer.batches] == [3, 2]
    assert len({record["item_id"] for record in records}) == 5
    assert [record["timings"]["encode_seconds"] for record in records] == [0.5] * 5


def test_memory_that_runs_out_over_a_batch_makes_it_and_those_after_it_smaller(
    video_folder: Path, run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(questions: list[str], _stop: Callable[[], bool]) -> None:
        if len(questions) > 3:
            raise OutOfMemoryError("Too much.", "Use less.")

    items = [Item(video_folder / "c.mp4", f"{number}.mp4", f"Question {number}?") for number in range(11)]
    answerer = FakeAnswerer(on_chunk=when_all_are_read(monkeypatch, 11), on_answer=fail)
    options = replace(OPTIONS, batch_size=8, frames_ahead=512)  # in 256 not all are read before they are waited for
    _, summary, records = run_items(answerer, items, options)
    assert [len(batch) for batch in answerer.batches] == [8, 4, 2, 2, 4, 2, 2, 2, 1]
    assert [record["status"] for record in records] == ["ok"] * 11
    assert {record["frames"]["count"] for record in records} == {20}  # none was seen with fewer frames
    assert summary.exit_code is ExitCode.OK


def test_the_first_answer_alone_has_the_cost_of_the_video(
    video_folder: Path, run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    answerer = FakeAnswerer()
    answer = answerer.answer_batch

    def watch(questions: list[tuple[EncodedVideo, str]], *args: Any, **kwargs: Any) -> list[Answer]:
        asked.extend(video.read_seconds for video, _ in questions)
        return answer(questions, *args, **kwargs)

    monkeypatch.setattr(answerer, "answer_batch", watch)
    run_items(answerer, items_of(video_folder, "a", ["1?", "2?", "3?"]), replace(OPTIONS, batch_size=2))
    assert asked == [0.25, 0.0, 0.0]


def test_choices_of_items_come_before_those_of_all(video_folder: Path, run_items: RunBatch) -> None:
    first, second, third = items_of(video_folder, "a", ["1?", "2?", "3?"])
    answerer = FakeAnswerer()
    options = replace(OPTIONS, choices=("yes", "no"), batch_size=8)
    run_items(answerer, [first, replace(second, choices=("A", "B")), third], options)
    chosen = dict(zip(map(tuple, answerer.batches), [choices for _, choices in answerer.prompted], strict=True))
    assert chosen == {("1?", "3?"): ("yes", "no"), ("2?",): ("A", "B")}


def test_a_bad_question_costs_only_itself(video_folder: Path, run_items: RunBatch) -> None:
    def fail(questions: list[str], _stop: Callable[[], bool]) -> None:
        if "bad?" in questions:
            raise ValueError("no such word")

    items = items_of(video_folder, "ab", ["1?", "bad?", "2?"])
    _, summary, records = run_items(FakeAnswerer(on_answer=fail), items, replace(OPTIONS, batch_size=3))
    failed = [record for record in records if record["status"] == "error"]
    assert [record["question"] for record in failed] == ["bad?", "bad?"]
    assert failed[0]["error"]["type"] == "ValueError"
    assert "answer" not in failed[0]
    assert len(records) == 6
    assert summary.exit_code is ExitCode.BATCH_FAILURES
    assert summary.errors == {"ValueError": 2}


def test_bad_videos_are_error_records(video_folder: Path, tmp_path: Path, run_items: RunBatch) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    bad = [Item(damaged, "damaged.mp4", "?"), Item(tmp_path / "gone.mp4", "gone.mp4", "?")]
    good = items_of(video_folder, "ab", ["?"])
    outside = Item(video_folder / "a.mp4", "a.mp4", "?", start_seconds=60.0)
    backwards = Item(video_folder / "a.mp4", "a.mp4", "?", start_seconds=2.0, end_seconds=1.0)
    _, summary, records = run_items(FakeAnswerer(), [*bad, *good, outside, backwards], OPTIONS)
    assert summary.errors == {
        "UnreadableVideoError": 1, "VideoNotFoundError": 1, "RangeOutsideVideoError": 1, "UsageError": 1
    }  # fmt: skip
    assert sum(record["status"] == "ok" for record in records) == 2


def test_a_video_that_is_deleted_after_listing_is_an_error_record(
    items: list[Item], tmp_path: Path, run_items: RunBatch
) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(items[0].video.read_bytes())

    def hash_and_delete(path: Path) -> str:
        path.unlink()
        return "whole:0"

    options = replace(OPTIONS, content_of=hash_and_delete)
    _, summary, records = run_items(FakeAnswerer(), [Item(copy, "copy.mp4", "?")], options)
    assert summary.errors == {"VideoNotFoundError": 1}
    assert records[0]["status"] == "error"


def test_a_video_that_goes_while_it_is_hashed_costs_only_itself(video_folder: Path, run_items: RunBatch) -> None:
    """Between two looks at it, so that the error is the system's own."""

    def content_of(path: Path) -> str:
        if path.name == "a.mp4":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return path.name

    options = replace(OPTIONS, content_of=content_of)
    _, summary, records = run_items(FakeAnswerer(), items_of(video_folder, "ab", ["?"]), options)
    assert {record["video"]: record["status"] for record in records} == {"a.mp4": "error", "b.mp4": "ok"}
    assert summary.errors == {"UnreadableVideoError": 1}


def test_what_is_done_is_not_opened_again(
    items: list[Item], run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_items(FakeAnswerer(), items[:3], OPTIONS)
    answerer, opened = FakeAnswerer(), list[str]()

    def watch(path: Path, options: ReadOptions) -> VideoReader:
        opened.append(path.name)
        return open_video(path, options)

    monkeypatch.setattr(reading_pool, "open_video", watch)
    _, summary, records = run_items(answerer, items, OPTIONS)
    assert sorted(answerer.seen) == sorted(opened) == ["b.mp4", "c.mp4", "d.mp4"]
    assert (summary.before.total(), summary.num_answered) == (3, 5)
    assert len({record["item_id"] for record in records}) == len(records) == 8


def test_another_setting_is_not_taken_for_done(items: list[Item], run_items: RunBatch) -> None:
    run_items(FakeAnswerer(), items, OPTIONS)
    _, summary, records = run_items(FakeAnswerer(), items, replace(OPTIONS, settings={"model": "other"}))
    assert summary.before.total() == 0
    assert len(records) == 16


@pytest.mark.parametrize(("retry", "expected"), [(False, 0), (True, 1)])
def test_errors_are_tried_again_when_asked(video_folder: Path, run_items: RunBatch, retry: bool, expected: int) -> None:
    def fail(_questions: list[str], _stop: Callable[[], bool]) -> None:
        raise ValueError

    item = items_of(video_folder, "a", ["?"])
    run_items(FakeAnswerer(on_answer=fail), item, OPTIONS)
    _, summary, records = run_items(FakeAnswerer(), item, replace(OPTIONS, retry_errors=retry))
    assert summary.num_answered == expected
    assert [record["status"] for record in records] == ["error", "ok"][: 1 + expected]


def test_too_many_failures_end_it(items: list[Item], run_items: RunBatch) -> None:
    def fail(_questions: list[str], _stop: Callable[[], bool]) -> None:
        raise ValueError

    _, summary, records = run_items(FakeAnswerer(on_answer=fail), items, replace(OPTIONS, max_failures=3))
    assert len(records) == summary.num_failed == 3
    assert summary.num_left == 5
    assert summary.stopped == "Stopped after 3 failures."


def test_memory_that_runs_out_makes_the_item_smaller(video_folder: Path, run_items: RunBatch) -> None:
    def run_out(_name: str, num_wanted: int) -> None:
        if num_wanted > 7:
            raise OutOfMemoryError("Memory ran out.", "Use less.")

    items = items_of(video_folder, "d", ["1?", "2?"])
    _, summary, records = run_items(FakeAnswerer(on_chunk=run_out), items, OPTIONS)
    assert [record["frames"]["count"] for record in records] == [7, 7]
    assert records[0]["warnings"] == ["Memory ran out with 14 frames; 7 were looked at."]
    assert summary.num_answered == 2


def test_memory_that_runs_out_at_one_question_makes_no_other_smaller(video_folder: Path, run_items: RunBatch) -> None:
    answerer = FakeAnswerer()

    def run_out(questions: list[str], _stop: Callable[[], bool]) -> None:
        if "large?" in questions and answerer.seen.count("d.mp4") < 2:
            raise OutOfMemoryError("Memory ran out.", "Use less.")

    answerer.on_answer = run_out
    items = items_of(video_folder, "d", ["1?", "large?", "2?"])
    _, _, records = run_items(answerer, items, replace(OPTIONS, batch_size=4))
    assert {record["question"]: record["frames"]["count"] for record in records} == {"1?": 28, "2?": 28, "large?": 14}


@pytest.mark.parametrize(
    ("sampling", "num_tries"),
    [(SamplingOptions(num_frames=64), 4), (SamplingOptions(num_frames=3), 2), (SamplingOptions(num_frames=1), 1)],
)
def test_memory_that_runs_out_for_good_is_an_error_record(
    video_folder: Path, run_items: RunBatch, sampling: SamplingOptions, num_tries: int
) -> None:
    def run_out(_name: str, _num_wanted: int) -> None:
        raise OutOfMemoryError("Memory ran out.", "Use less.")

    answerer = FakeAnswerer(on_chunk=run_out)
    _, summary, records = run_items(answerer, items_of(video_folder, "d", ["?"]), replace(OPTIONS, sampling=sampling))
    assert len(answerer.seen) == num_tries
    assert [record["error"]["type"] for record in records] == ["OutOfMemoryError"]
    assert summary.errors == {"OutOfMemoryError": 1}


def test_memory_that_one_picture_takes_is_not_asked_for_again(video_folder: Path, run_items: RunBatch) -> None:
    """The process that reads holds a picture at a time: with fewer frames it would run out as well."""

    def run_out(_name: str, _num_wanted: int) -> None:
        raise ReadingMemoryError("Reading takes too much.", "Convert it.")

    answerer = FakeAnswerer(on_chunk=run_out)
    _, summary, _ = run_items(answerer, items_of(video_folder, "d", ["?"]), OPTIONS)
    assert len(answerer.seen) == 1
    assert summary.errors == {"ReadingMemoryError": 1}


def test_an_answer_that_takes_too_long_is_an_error_record(video_folder: Path, run_items: RunBatch) -> None:
    """In a batch the slow one is asked again alone, and the others keep their answers."""

    def dawdle(questions: list[str], stop: Callable[[], bool]) -> None:
        while "slow?" in questions and not stop():
            time.sleep(0.01)

    items = items_of(video_folder, "a", ["1?", "slow?", "2?"])
    options = replace(OPTIONS, batch_size=3, item_timeout_seconds=0.3)
    _, summary, records = run_items(FakeAnswerer(on_answer=dawdle), items, options)
    assert summary.errors == {"ItemTimeoutError": 1}
    assert by_question(records)["a.mp4", "slow?"]["error"]["message"].startswith(
        "The answer was not finished within 0.3"
    )


def test_a_video_that_takes_too_long_to_encode_is_an_error_record(video_folder: Path, run_items: RunBatch) -> None:
    def dawdle(name: str, _num_wanted: int) -> None:
        time.sleep(0.2 if name == "d.mp4" else 0)

    options = replace(OPTIONS, item_timeout_seconds=0.3)
    _, summary, records = run_items(FakeAnswerer(on_chunk=dawdle), items_of(video_folder, "abcd", ["?"]), options)
    assert summary.errors == {"ItemTimeoutError": 1}
    assert by_question(records)["d.mp4", "?"]["status"] == "error"


@pytest.mark.parametrize("at", ["on_chunk", "on_answer"])
def test_a_lost_gpu_ends_it_and_what_was_done_is_kept(items: list[Item], run_items: RunBatch, at: str) -> None:
    calls = []

    def lose(*_: object) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    answerer = FakeAnswerer()
    setattr(answerer, at, lose)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        run_items(answerer, items, OPTIONS)
    _, summary, records = run_items(FakeAnswerer(), items, OPTIONS)
    assert summary.before.total() >= 1
    assert len(records) == 8
    assert {record["status"] for record in records} == {"ok"}


def test_a_full_disk_ends_it(items: list[Item], run_items: RunBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    append, calls = Journal.append, []

    def fill(journal: Journal, record: dict[str, object]) -> None:
        calls.append(1)
        if len(calls) > 3:
            raise JournalError("The disk is full.", "Make room.")
        append(journal, record)

    monkeypatch.setattr(Journal, "append", fill)
    with pytest.raises(JournalError, match="full"):
        run_items(FakeAnswerer(), items, OPTIONS)
    monkeypatch.setattr(Journal, "append", append)
    _, summary, records = run_items(FakeAnswerer(), items, OPTIONS)
    assert (summary.before.total(), len(records)) == (3, 8)


def test_ctrl_c_keeps_what_is_done(items: list[Item], run_items: RunBatch) -> None:
    def interrupt(_questions: list[str], _stop: Callable[[], bool]) -> None:
        if answerer.seen.count("c.mp4"):
            raise KeyboardInterrupt

    answerer = FakeAnswerer(on_answer=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_items(answerer, items, replace(OPTIONS, num_readers=1))
    _, summary, records = run_items(FakeAnswerer(), items, OPTIONS)
    assert summary.before.total() == 4
    assert len(records) == 8


def test_leaving_early_ends_the_threads(items: list[Item], tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with Journal(tmp_path / "out.jsonl") as journal:
        events = runner.run_batch(FakeAnswerer(), items, journal, OPTIONS)
        next(events)
        assert set(threading.enumerate()) - before
        events.close()
        assert set(threading.enumerate()) <= before


def test_the_time_is_told_apart(items: list[Item], run_items: RunBatch) -> None:
    def dawdle(*_: object) -> None:
        time.sleep(0.1)

    _, summary, _ = run_items(FakeAnswerer(on_answer=dawdle), items, OPTIONS)
    assert summary.bottleneck is Stage.ANSWERING
    assert summary.stage_seconds[Stage.ANSWERING] == pytest.approx(0.8, abs=0.3)
    waiting = summary.waiting_share
    assert waiting is not None
    assert waiting < 0.5
    assert sum(summary.stage_seconds.values()) <= summary.elapsed_seconds
