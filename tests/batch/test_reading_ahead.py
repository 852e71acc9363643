"""Reading ahead across videos: nobody waits for a slow one, memory is bounded to the frame, and all of it ends."""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfvqa.batch import reading_pool
from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import Stage
from sfvqa.batch.video_ahead import FrameBudget, NoLongerWantedError, VideoAhead
from sfvqa.inference.encode import EncodedVideo, EncodeProgress
from sfvqa.inference.reading_ahead import Reading
from sfvqa.video import ReadOptions, SamplingOptions, VideoReader
from sfvqa.video.clip import CHUNK_SIZE
from sfvqa.video.readers import isolated
from tests.batch.answerer import FakeAnswerer
from tests.batch.conftest import HERE, RunBatch, items_of
from tests.inference.conftest import write_video
from tests.inference.fake_reader import FakeReader
from tests.video.readers.test_isolated import SABOTAGE

OPTIONS = BatchOptions(reading=HERE, content_of=lambda path: path.name, sampling=SamplingOptions(num_frames=1000))

HANG = """
pictures = PyAVReader.pictures
def hang(self, *args):
    while "hangs" in self.info.path.name:
        time.sleep(1)
    return pictures(self, *args)
PyAVReader.pictures = hang
"""


pytestmark = pytest.mark.usefixtures("no_process_is_left")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever happened, none stays behind."""
    threads = threading.active_count()
    yield
    deadline = time.monotonic() + 2
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)  # the timer of a reader that was killed is ending
    assert threading.active_count() == threads


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> dict[str, FakeReader]:
    """Made-up videos, opened by their names."""
    made: dict[str, FakeReader] = {}

    def open_made(path: Path, _options: ReadOptions) -> VideoReader:
        reader = made[path.name]
        reader.info = replace(reader.info, path=path)
        return reader

    monkeypatch.setattr(reading_pool, "open_video", open_made)
    return made


def items_named(*names: str) -> list[Item]:
    return [Item(Path(name), name, "?") for name in names]


def test_a_slow_video_is_in_the_way_of_no_other(readers: dict[str, FakeReader], run_items: RunBatch) -> None:
    """Not even when the model has begun with it."""
    readers |= {"slow": FakeReader(20, seconds_a_frame=0.05)}
    readers |= {f"quick {number}": FakeReader(20) for number in range(6)}
    _, summary, records = run_items(FakeAnswerer(), items_named(*readers), replace(OPTIONS, num_readers=2))
    assert [record["video"] for record in records][-1] == "slow"
    assert summary.num_answered == 7


def test_videos_are_read_while_the_model_works(
    readers: dict[str, FakeReader], run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer but the last is held back until the next video was read, by the one reader that there is."""
    num_read, feed, came = threading.Semaphore(0), VideoAhead.feed, list[bool]()

    def count(video: VideoAhead, chunks: Reading) -> None:
        feed(video, chunks)
        num_read.release()

    def wait(_questions: list[str], _stop: Callable[[], bool]) -> None:
        for _ in range(1 if came else 2):
            if len(came) < len(readers):
                came.append(num_read.acquire(timeout=60))

    readers |= {f"{number}": FakeReader(10, seconds_a_frame=0.01) for number in range(10)}
    monkeypatch.setattr(VideoAhead, "feed", count)
    _, summary, _ = run_items(FakeAnswerer(on_answer=wait), items_named(*readers), replace(OPTIONS, num_readers=1))
    assert came == [True] * 10
    assert summary.bottleneck is Stage.ANSWERING


@pytest.mark.parametrize(("frames_ahead", "num_readers"), [(8, 1), (8, 4), (24, 3), (100, 4)])
def test_frames_are_never_more_than_may_be_held(
    readers: dict[str, FakeReader], run_items: RunBatch, frames_ahead: int, num_readers: int
) -> None:
    """Of all videos together, however slow the model is; and the memory is used."""
    readers |= {f"{number}": FakeReader(5 + 9 * number) for number in range(8)}
    alive: list[int] = []
    budgets: list[FrameBudget] = []

    def watch(_name: str, _num_wanted: int) -> None:
        time.sleep(0.005)
        alive.append(budgets[0].num_held)

    class Watched(FrameBudget):
        def __init__(self, num_frames: int) -> None:
            super().__init__(num_frames)
            budgets.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfvqa.batch.reading_pool.FrameBudget", Watched)
        options = replace(OPTIONS, frames_ahead=frames_ahead, num_readers=num_readers)
        _, summary, records = run_items(FakeAnswerer(on_chunk=watch), items_named(*readers), options)
    whole_chunks = frames_ahead // CHUNK_SIZE * CHUNK_SIZE
    assert summary.most_frames_held == max(alive) == whole_chunks
    assert budgets[0].num_held == 0
    assert sorted(record["frames"]["count"] for record in records) == [5 + 9 * number for number in range(8)]


def test_what_counts_is_the_memory_itself() -> None:
    """A piece of a chunk keeps all of it."""
    budget = FrameBudget(16)
    chunk = budget.make_chunk((8, 4, 4, 3), lambda: True)
    piece = chunk[:2]
    del chunk
    assert budget.num_held == 8
    del piece
    assert (budget.num_held, budget.most_held) == (0, 8)


def test_who_waits_for_memory_can_be_told_to_stop() -> None:
    budget, is_wanted = FrameBudget(8), threading.Event()
    is_wanted.set()
    held = budget.make_chunk((8, 4, 4, 3), lambda: True)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            budget.make_chunk((8, 4, 4, 3), is_wanted.is_set)
        except NoLongerWantedError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    assert thread.is_alive()
    is_wanted.clear()
    budget.wake()
    thread.join(1)
    assert len(caught) == 1
    assert (budget.num_held, len(held)) == (8, 8)


def test_frames_that_cannot_be_read_are_left_out(readers: dict[str, FakeReader], run_items: RunBatch) -> None:
    readers |= {"damaged": FakeReader(20, damaged=[3, 4, 19])}
    _, _, (record,) = run_items(FakeAnswerer(), items_named("damaged"), OPTIONS)
    assert record["frames"]["count"] == 17
    assert "3 of the 20 frames" in record["warnings"][0]


def test_a_video_that_fails_in_the_middle_costs_only_itself(
    readers: dict[str, FakeReader], run_items: RunBatch
) -> None:
    def fail(index: int) -> None:
        if index == 15:
            raise ValueError("a bit fell over")

    readers |= {"bad": FakeReader(20, before=fail), "good": FakeReader(20)}
    _, summary, records = run_items(FakeAnswerer(), items_named("bad", "good"), OPTIONS)
    assert summary.errors == {"ValueError": 1}
    assert {record["video"]: record["status"] for record in records} == {"bad": "error", "good": "ok"}


@pytest.mark.parametrize("num_readers", [1, 3])
def test_giving_up_a_video_ends_its_reading(
    readers: dict[str, FakeReader], run_items: RunBatch, num_readers: int
) -> None:
    """When the model cannot go on with it, nobody reads the rest."""

    def fail(name: str, _num_wanted: int) -> None:
        if name == "long":
            raise ValueError("no more")

    readers |= {"long": FakeReader(1000, seconds_a_frame=0.002), "short": FakeReader(20)}
    options = replace(OPTIONS, num_readers=num_readers, frames_ahead=16)
    _, summary, _ = run_items(FakeAnswerer(on_chunk=fail), items_named("long", "short"), options)
    assert (summary.num_failed, summary.num_answered) == (1, 1)
    assert readers["long"].num_given < 100
    assert readers["long"].is_closed
    assert readers["long"].cancelled.is_set()


def test_an_error_while_finding_out_what_is_left_ends_the_batch(
    readers: dict[str, FakeReader], run_items: RunBatch
) -> None:
    """It is none of a video: nothing would ever be done."""

    def fail(_path: Path) -> str:
        raise RuntimeError("a mistake of ours")

    readers |= {"one": FakeReader(5)}
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run_items(FakeAnswerer(), items_named("one"), replace(OPTIONS, content_of=fail))


def test_a_reader_that_hangs_is_killed_and_the_rest_goes_on(
    video_folder: Path, tmp_path: Path, run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", SABOTAGE.format(what=HANG))
    write_video(tmp_path / "hangs.mp4", num_frames=10, colour=(1, 2, 3))
    hanging = Item(tmp_path / "hangs.mp4", "hangs.mp4", "?")
    options = BatchOptions(item_timeout_seconds=3, num_readers=1)
    _, summary, records = run_items(FakeAnswerer(), [hanging, *items_of(video_folder, "ab", ["?"])], options)
    assert summary.errors == {"ReadTimeoutError": 1}
    assert [record["status"] for record in records] == ["error", "ok", "ok"]
    assert "within 3 seconds" in records[0]["error"]["message"]
    assert "Allow more with --item-timeout, " in records[0]["error"]["message"]  # --read-timeout is 600 seconds


HANG_AT_OPENING = """
init = PyAVReader.__init__
def hang(self, path, *args):
    while "hangs" in str(path):
        time.sleep(1)
    init(self, path, *args)
PyAVReader.__init__ = hang
"""


def test_a_reader_that_hangs_while_opening_is_killed_too(
    video_folder: Path, tmp_path: Path, run_items: RunBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", SABOTAGE.format(what=HANG_AT_OPENING))
    write_video(tmp_path / "hangs.mp4", num_frames=10, colour=(1, 2, 3))
    items = [Item(tmp_path / "hangs.mp4", "hangs.mp4", "?"), *items_of(video_folder, "ab", ["?"])]
    _, _, records = run_items(FakeAnswerer(), items, BatchOptions(item_timeout_seconds=3, num_readers=1))
    assert [record["status"] for record in records] == ["error", "ok", "ok"]
    assert "time ran out while opening it" in records[0]["error"]["message"]


@pytest.mark.parametrize("what", ["hashed", "opened"])
def test_a_file_that_the_system_does_not_give_costs_only_its_items(
    readers: dict[str, FakeReader], run_items: RunBatch, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A server that is gone: not even this process can open the file, and there is nothing to kill."""
    readers |= {"lost": FakeReader(5), "good": FakeReader(5)}
    is_back = threading.Event()

    def hang(path: Path) -> None:
        if path.name == "lost":
            is_back.wait(30)

    def content_of(path: Path) -> str:
        if what == "hashed":
            hang(path)
        return path.name

    def open_late(path: Path, _options: ReadOptions) -> VideoReader:
        hang(path)
        readers[path.name].info = replace(readers[path.name].info, path=path)
        return readers[path.name]

    monkeypatch.setattr(reading_pool, "open_video", open_late)
    monkeypatch.setattr(reading_pool, "_GRACE_SECONDS", 0.1)
    options = replace(OPTIONS, item_timeout_seconds=0.3, num_readers=1, content_of=content_of)
    try:
        _, summary, records = run_items(FakeAnswerer(), items_named("lost", "good"), options)
        assert {record["video"]: record["status"] for record in records} == {"lost": "error", "good": "ok"}
        assert summary.errors == {"ReadTimeoutError": 1}
        assert f"“lost” was not {what} within 0.3 seconds." in records[0]["error"]["message"]
    finally:
        is_back.set()
    if what == "opened":  # what was opened so late is closed
        deadline = time.monotonic() + 5
        while not readers["lost"].is_closed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert readers["lost"].is_closed


def test_leaving_a_batch_ends_what_is_being_read(
    video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while a reader hangs: it is not waited for."""
    monkeypatch.setattr(isolated, "_PROGRAM", SABOTAGE.format(what=HANG))
    write_video(tmp_path / "hangs.mp4", num_frames=10, colour=(1, 2, 3))
    items = [Item(tmp_path / "hangs.mp4", "hangs.mp4", "?"), *items_of(video_folder, "a", ["?"])]

    def interrupt(_questions: list[str], _stop: Callable[[], bool]) -> None:
        raise KeyboardInterrupt

    start = time.monotonic()
    with Journal(tmp_path / "out.jsonl") as journal, pytest.raises(KeyboardInterrupt):
        for _ in run_batch(FakeAnswerer(on_answer=interrupt), items, journal, BatchOptions(num_readers=2)):
            pass
    assert time.monotonic() - start < 5


def test_pictures_of_a_chunk_are_its_own(readers: dict[str, FakeReader], run_items: RunBatch) -> None:
    """Every frame arrives once, in its order, and as it was read."""
    readers |= {"one": FakeReader(20)}
    sums: list[float] = []
    answerer = FakeAnswerer()
    encode = answerer.encode_progressively

    def watch(*args: Any, **kwargs: Any) -> Generator[EncodeProgress, None, EncodedVideo]:
        encoded = yield from encode(*args, **kwargs)
        sums.extend(encoded.visual_tokens.slow[:, 0].tolist())
        return encoded

    answerer.encode_progressively = watch  # type: ignore[method-assign]
    run_items(answerer, items_named("one"), OPTIONS)
    fit = answerer.fit()
    expected = [float(frame.pixels.sum()) for frame in FakeReader(20).read(range(20), fit)]
    np.testing.assert_array_equal(sums, expected)
