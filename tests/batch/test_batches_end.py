"""Every batch ends, with a record an item: whatever is wrong with a video, with its reader or with the model's memory.

Garbage is not collected meanwhile: what a failed video held must come back at once, not when Python next looks.
"""

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfvqa.batch import reading_pool, runner, watchdog
from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Record, read_records
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import ItemFinished
from sfvqa.batch.video_ahead import FrameBudget
from sfvqa.errors import OutOfMemoryError, SfvqaError
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import ReadOptions, SamplingOptions, VideoReader
from sfvqa.video.readers import isolated
from tests.batch.answerer import FakeAnswerer
from tests.batch.broken_files import broken_files, unusual_files
from tests.batch.conftest import HERE
from tests.inference.conftest import write_video
from tests.inference.fake_reader import FakeReader
from tests.video import videos
from tests.video.readers.test_isolated import SABOTAGE
from tests.windows import needs_pipes, needs_signals

LONGEST_SECONDS = 60
OPTIONS = BatchOptions(
    reading=HERE,
    content_of=lambda path: path.name,
    sampling=SamplingOptions(num_frames=1000),
    frames_ahead=8,
    num_readers=2,
)

RunToItsEnd = Callable[..., dict[str, Record]]


@pytest.fixture(autouse=True)
def nothing_is_collected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[FrameBudget]:
    """Those that batches have."""
    made: list[FrameBudget] = []

    class Watched(FrameBudget):
        def __init__(self, num_frames: int) -> None:
            super().__init__(num_frames)
            made.append(self)

    monkeypatch.setattr("sfvqa.batch.reading_pool.FrameBudget", Watched)
    return made


@pytest.fixture
def run_to_its_end(tmp_path: Path, budgets: list[FrameBudget]) -> RunToItsEnd:
    """Run a batch and give the records by the name of the video; a batch that hangs fails the test."""

    def run_them(answerer: VideoQA, items: Sequence[Item], options: BatchOptions = OPTIONS) -> dict[str, Record]:
        deadline = time.monotonic() + LONGEST_SECONDS
        with Journal(tmp_path / "out.jsonl") as journal:
            for event in run_batch(answerer, items, journal, options):
                assert time.monotonic() < deadline, "the batch does not end"
                if isinstance(event, ItemFinished):  # forty videos take a busy machine minutes, none of them one
                    deadline = time.monotonic() + LONGEST_SECONDS
        assert budgets[-1].num_held == 0
        records = list(read_records(tmp_path / "out.jsonl"))
        assert len(records) == len(items)
        return {record["video"]: record for record in records}

    return run_them


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


def fall_over_at(number: int) -> Callable[[int], None]:
    def fall_over(index: int) -> None:
        if index == number:
            raise ValueError("a bit fell over")

    return fall_over


@pytest.mark.parametrize("damaged", [[19], [3, 4], range(8, 16), range(1, 20)])
def test_missing_frames_are_no_end_of_a_batch(
    readers: dict[str, FakeReader], run_to_its_end: RunToItsEnd, damaged: Sequence[int]
) -> None:
    """Encoding tells its progress once more where frames are missing: nothing was waited for, and yet it never went on.

    `sfvqa ask` answered such a video; a batch stood still for ever, and no time-out ended it.
    """
    readers |= {"damaged": FakeReader(20, damaged=damaged), "sound": FakeReader(20)}
    qa = VideoQA.load("tiny", device="cpu")
    options = replace(OPTIONS, generation=GenerationOptions(max_new_tokens=4))
    records = run_to_its_end(qa, items_named("damaged", "sound"), options)
    assert records["damaged"]["frames"]["count"] == 20 - len(damaged)
    assert f"{len(damaged)} of the 20 frames asked for could not be decoded" in str(records["damaged"]["warnings"])
    assert records["sound"]["frames"]["count"] == 20


def test_a_damaged_file_gets_the_record_of_ask(tmp_path: Path, run_to_its_end: RunToItsEnd) -> None:
    """The same with a file: a tenth of its bytes, in the middle, are others."""
    path = videos.write_video(tmp_path / "damaged.mp4", videos.Recipe(videos.constant_rate(75), group=15))
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + len(content) // 10):
        content[place] ^= 0x5A
    path.write_bytes(content)
    qa, short = VideoQA.load("tiny", device="cpu"), GenerationOptions(max_new_tokens=24)
    answer = qa.ask(path, "Describe the video.", short)
    assert "could not be decoded" in str(answer.warnings)
    options = replace(OPTIONS, sampling=qa.default_sampling, generation=short, reading=ReadOptions())
    record = run_to_its_end(qa, [Item(path, path.name, "Describe the video.")], options)["damaged.mp4"]
    assert (record["answer"], record["warnings"]) == (answer.text, list(answer.warnings))
    assert record["frames"]["indices"] == list(answer.frames.indices)


@pytest.mark.parametrize("number", [3, 8, 12, 15])
def test_what_a_video_held_that_failed_is_there_for_the_next(
    readers: dict[str, FakeReader], run_to_its_end: RunToItsEnd, number: int
) -> None:
    """The error, its traceback and the frames in it kept each other, so that the others waited for memory for ever."""
    readers |= {f"bad {each}": FakeReader(20, before=fall_over_at(number)) for each in range(4)}
    readers |= {f"good {each}": FakeReader(20) for each in range(2)}
    records = run_to_its_end(FakeAnswerer(), items_named(*readers))
    assert {name: record["status"] for name, record in records.items()} == {
        name: "error" if name.startswith("bad") else "ok" for name in readers
    }
    assert records["bad 0"]["error"]["message"] == "ValueError: a bit fell over"
    assert "in fall_over" in records["bad 0"]["error"]["traceback"]


@pytest.mark.parametrize("where", ["reading", "encoding", "answering"])
@pytest.mark.parametrize("error", [OutOfMemoryError("Memory ran out.", "Use less."), MemoryError()])
def test_fewer_frames_are_tried_with_the_memory_of_the_first_try(
    readers: dict[str, FakeReader], run_to_its_end: RunToItsEnd, where: str, error: Exception
) -> None:
    """A tensor lived for as long as the error that it was made under: on a GPU, until a collection."""
    made: list[weakref.ref[torch.Tensor]] = []

    def run_out(*_: object) -> None:
        assert not any(tensor() is not None for tensor in made)
        large = torch.zeros(100)
        made.append(weakref.ref(large))
        if len(made) < 3:
            raise type(error)(*error.args)

    def read(index: int) -> None:
        if index == 0:
            run_out()

    readers |= {"large": FakeReader(40, before=read if where == "reading" else lambda _index: None)}
    answerer = FakeAnswerer()
    if where == "encoding":
        answerer.on_chunk = run_out
    elif where == "answering":
        answerer.on_answer = run_out
    records = run_to_its_end(answerer, items_named("large"))
    assert records["large"]["frames"]["count"] == 10
    assert records["large"]["warnings"][-1] == "Memory ran out with 20 frames; 10 were looked at."


KILLED = """
pictures = PyAVReader.pictures
def give_some(self, *args):
    for number, picture in enumerate(pictures(self, *args)):
        if number == 11 and "bad" in self.info.path.name:
            {what}
        yield picture
PyAVReader.pictures = give_some
"""


@needs_signals
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by signal 9 while reading frame 12 of 20"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "was not read within 3 seconds"),
        ("time.sleep(60)", "was not read within 3 seconds"),
    ],
)
def test_readers_that_die_or_stand_still_cost_only_their_videos(
    tmp_path: Path, run_to_its_end: RunToItsEnd, monkeypatch: pytest.MonkeyPatch, what: str, said: str
) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", SABOTAGE.format(what=KILLED.format(what=what)))
    names = ["bad 1.mp4", "bad 2.mp4", "good 1.mp4", "good 2.mp4"]
    for name in names:
        write_video(tmp_path / name, num_frames=20, colour=(40, 80, 160))
    options = replace(OPTIONS, reading=ReadOptions(), item_timeout_seconds=3)
    records = run_to_its_end(FakeAnswerer(), [Item(tmp_path / name, name, "?") for name in names], options)
    assert [records[name]["status"] for name in names] == ["error", "error", "ok", "ok"]
    assert said in records["bad 1.mp4"]["error"]["message"]


def hang() -> None:
    while True:
        time.sleep(0.01)


@pytest.mark.parametrize("where", ["encoding", "answering"])
def test_a_model_that_stands_still_is_interrupted(
    readers: dict[str, FakeReader], run_to_its_end: RunToItsEnd, capfd: pytest.CaptureFixture[str], where: str
) -> None:
    """No time-out that is asked between steps ends the step itself."""
    readers |= {"a": FakeReader(20), "b": FakeReader(20)}
    answerer = FakeAnswerer()
    if where == "encoding":
        answerer.on_chunk = lambda name, _num_wanted: hang() if name == "a" else None
    else:
        answerer.on_answer = lambda questions, _stop: hang() if questions == ["a?"] else None
    items = [Item(Path(name), name, f"{name}?") for name in readers]
    records = run_to_its_end(answerer, items, replace(OPTIONS, item_timeout_seconds=0.5))
    assert records["a"]["error"]["type"] == "ItemTimeoutError"
    assert "No progress for 0.5 seconds while the" in records["a"]["error"]["message"]
    assert records["b"]["status"] == "ok"
    said = capfd.readouterr().err
    assert "what each thread does" in said
    assert "in hang" in said


def test_a_thread_that_never_returns_costs_only_its_video(
    readers: dict[str, FakeReader],
    run_to_its_end: RunToItsEnd,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As where a server is gone while the video cache is looked into: no process that could be killed reads there."""
    is_back = threading.Event()

    def look(path: Path, *_: object, **__: object) -> bool:
        return path.name == "lost" and is_back.wait(LONGEST_SECONDS)

    readers |= {name: FakeReader(20) for name in ("lost", "a", "b")}
    answerer = FakeAnswerer()
    monkeypatch.setattr(answerer, "is_kept", look)
    monkeypatch.setattr(runner, "_GRACE_SECONDS", 0.2)
    options = replace(OPTIONS, item_timeout_seconds=0.5, num_readers=1)
    records = run_to_its_end(answerer, items_named(*readers), options)
    is_back.set()
    assert {name: record["status"] for name, record in records.items()} == {"lost": "error", "a": "ok", "b": "ok"}
    assert "No progress for 0.7 seconds while the video was read." in records["lost"]["error"]["message"]
    assert "in look" in capfd.readouterr().err


NEVER_RETURNS = """
import sys; sys.path[:] = {path!r}
import threading
from pathlib import Path
from sfvqa.batch import watchdog
from sfvqa.batch.item import Item
from sfvqa.batch.journal import Journal
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.runner import run_batch
from sfvqa.batch.tally import ItemFinished
from tests.batch.answerer import FakeAnswerer
from tests.batch.broken_files import broken_files, unusual_files

watchdog._LAST_SECONDS = 0.5
answerer = FakeAnswerer(on_chunk=lambda *_: threading.Lock().acquire() and threading.Semaphore(0).acquire())
with Journal(Path("out.jsonl")) as journal:
    for _ in run_batch(answerer, [Item(Path("a.mp4"), "a.mp4", "?")], journal, BatchOptions(item_timeout_seconds=3)):
        pass
"""


def test_what_cannot_be_interrupted_ends_the_process_and_leaves_a_record(tmp_path: Path) -> None:
    """The same command again goes on with the others, and does not come to stand where it stood."""
    write_video(tmp_path / "a.mp4", num_frames=20, colour=(40, 80, 160))
    program = NEVER_RETURNS.format(path=sys.path)
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 1
    assert "Rerun the command to resume." in ended.stderr
    (record,) = read_records(tmp_path / "out.jsonl")
    assert record["error"]["type"] == "ItemTimeoutError"


@needs_pipes
def test_a_pipe_that_nobody_reads_keeps_the_watchdog_from_nothing(
    readers: dict[str, FakeReader], run_to_its_end: RunToItsEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stacks are told there before the item that stands still is ended."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"." * 65536):
            pass
    os.set_blocking(writing, True)
    monkeypatch.setattr(watchdog, "_STDERR", writing)
    monkeypatch.setattr(watchdog, "_SECONDS_TO_WRITE", 0.2)
    readers |= {name: FakeReader(8) for name in ("lost", "a")}
    answerer = FakeAnswerer(on_chunk=lambda name, _: hang() if name == "lost" else None)
    records = run_to_its_end(answerer, items_named(*readers), replace(OPTIONS, item_timeout_seconds=0.5))
    os.close(reading)
    os.close(writing)
    assert {name: record["status"] for name, record in records.items()} == {"lost": "error", "a": "ok"}


def overwrite(path: Path, _name: str = "", _num_wanted: int = 0) -> None:
    path.write_bytes(bytes(reversed(path.read_bytes())))


def append(path: Path, _name: str = "", _num_wanted: int = 0) -> None:
    with path.open("ab") as stream:
        stream.write(b"\0" * 100)


@pytest.mark.parametrize("when", ["before it is opened", "while it is read"])
def test_a_video_that_is_written_over_is_not_answered_as_the_one_that_was_there(
    tmp_path: Path, run_to_its_end: RunToItsEnd, when: str
) -> None:
    """Its record had the id of the old content and the status ok."""
    path = write_video(tmp_path / "a.mp4", num_frames=20, colour=(40, 80, 160))

    def content_of(_path: Path) -> str:
        if when == "before it is opened":
            write_video(tmp_path / "a.mp4", num_frames=30, colour=(160, 80, 40))
        return "whole:0"

    answerer = FakeAnswerer() if when == "before it is opened" else FakeAnswerer(on_chunk=lambda *_: overwrite(path))
    record = run_to_its_end(answerer, [Item(path, "a.mp4", "?")], replace(OPTIONS, content_of=content_of))["a.mp4"]
    if when == "before it is opened":  # larger by now, as if it had grown
        assert "grew while it was read" in record["warnings"][0]
    else:
        assert record["error"]["type"] == "UnreadableVideoError"
        assert "“" + str(path) + "” was changed while it was read." in record["error"]["message"]


def test_a_video_that_grows_is_answered_with_a_warning(tmp_path: Path, run_to_its_end: RunToItsEnd) -> None:
    """As while it is recorded: what was there is still what it begins with."""
    path = write_video(tmp_path / "a.mp4", num_frames=20, colour=(40, 80, 160))
    answerer = FakeAnswerer(on_chunk=lambda *_: append(path))
    record = run_to_its_end(answerer, [Item(path, "a.mp4", "?")])["a.mp4"]
    assert record["warnings"] == [f"“{path}” grew while it was read: what was added is not looked at."]


def outcome(record: Record) -> tuple[str, object]:
    return (record["answer"], record["warnings"]) if record["status"] == "ok" else (record["error"]["message"], None)


def ask(qa: VideoQA, path: Path, short: GenerationOptions) -> tuple[str, object]:
    try:
        answer = qa.ask(path, "Describe the video.", short)
    except SfvqaError as error:
        return error.with_flags, None
    return answer.text, list(answer.warnings)


@pytest.mark.slow
def test_a_batch_says_of_every_broken_file_what_ask_says(tmp_path: Path, run_to_its_end: RunToItsEnd) -> None:
    (tmp_path / "videos").mkdir()
    paths = broken_files(tmp_path / "videos") + unusual_files(tmp_path / "videos")
    qa, short = VideoQA.load("tiny", device="cpu"), GenerationOptions(max_new_tokens=16)
    asked = {path.name: ask(qa, path, short) for path in paths}
    assert sum("could not be decoded" in str(warnings) for _, warnings in asked.values()) >= 3
    assert sum(warnings is None for _, warnings in asked.values()) >= 3
    options = replace(OPTIONS, sampling=qa.default_sampling, generation=short, reading=ReadOptions())
    items = [Item(path, path.name, "Describe the video.") for path in paths]
    assert {name: outcome(record) for name, record in run_to_its_end(qa, items, options).items()} == asked
