"""What happens to requests behind the HTTP side: shared, batched, dropped, failed, refused."""

import gc
import logging
import os
import shutil
import subprocess
import threading
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from sfvqa.errors import (
    DeviceLostError,
    OutOfMemoryError,
    PromptTooLongError,
    ReaderKilledError,
    ReadTimeoutError,
    ServerBusyError,
    ServerError,
    ServerStoppingError,
    SfvqaError,
    UnreadableVideoError,
    UsageError,
)
from sfvqa.inference.answer import Answer
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo, EncodeProgress, EncodeStage
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.serve import model_thread as model_thread_module
from sfvqa.serve import sight as sight_module
from sfvqa.serve.request import Event, Job, Request
from sfvqa.serve.service import Service
from sfvqa.serve.waiting_room import ServiceOptions
from sfvqa.video import SamplingOptions
from sfvqa.video.readers import ReadOptions, VideoBeingOpened, isolated
from sfvqa.video.readers.isolated import SpareProcess
from tests.inference.fake_reader import FakeReader
from tests.serve.serving import PATIENCE_SECONDS, SHAPES, until

_FRAMES = SamplingOptions(num_frames=16)


@dataclass
class Listener:
    """Hears what happens to a request; `reacts` is told of every event, in the thread that tells it."""

    reacts: Callable[["Listener", Event], None] = lambda *_: None
    events: list[Event] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    job: Job | None = None

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Answer | Exception):
            self.over.set()
        self.reacts(self, event)

    @property
    def pieces(self) -> list[str]:
        return [event for event in self.events if isinstance(event, str)]

    def answer(self) -> Answer:
        last = self.last()
        assert isinstance(last, Answer), last
        return last

    def last(self) -> Event:
        assert self.over.wait(PATIENCE_SECONDS)
        return self.events[-1]


class Readers:
    """Stands in for opening videos: noise, of which nothing comes until `may_read` is set."""

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.opened: list[FakeReader] = []
        self.options: list[ReadOptions] = []
        self.error: Exception | None = None

    def open(self, _path: Path, options: ReadOptions, _spare: SpareProcess) -> "BeingOpened":
        self.options.append(options)
        reader = FakeReader(16, before=self._wait)
        self.opened.append(reader)
        return BeingOpened(reader)

    def _wait(self, _index: int) -> None:
        while not self.may_read.wait(0.01):
            if self.opened[-1].cancelled.is_set():
                raise ReaderKilledError("The process is gone.")
        if self.error is not None:
            raise self.error


@dataclass
class BeingOpened:
    """Stands in for a video that is being opened."""

    fake: FakeReader

    def reader(self) -> FakeReader:
        return self.fake

    def cancel(self) -> None:
        self.fake.cancel()

    def close(self) -> None:
        self.fake.close()


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> Readers:
    stand_in = Readers()
    monkeypatch.setattr(sight_module, "VideoBeingOpened", stand_in.open)
    return stand_in


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return Path(shutil.copy(SHAPES, tmp_path / "clip.mp4"))


@contextmanager
def running(qa: VideoQA, **options: Any) -> Iterator[Service]:
    with Service(qa, ServiceOptions(**options)) as service:
        yield service
    assert service.has_ended


def submit(
    service: Service,
    video: Path | None,
    question: str = "Describe the video.",
    reacts: Callable[[Listener, Event], None] = lambda *_: None,
    **generation: Any,
) -> Listener:
    listener = Listener(reacts)
    request = Request(question, video, sampling=_FRAMES, generation=GenerationOptions(**generation))
    listener.job = service.submit(request, listener)
    return listener


def sample(service: Service, name: str) -> float:
    lines = service.metrics.text().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def test_a_video_that_many_ask_about_is_read_and_encoded_once(tiny: VideoQA, readers: Readers, video: Path) -> None:
    """And they are answered together; the first has what it cost."""
    with running(tiny) as service:
        asked = [submit(service, video, f"Which digit is shown, {number}?") for number in range(5)]
        readers.may_read.set()
        answers = [each.answer() for each in asked]
        again = submit(service, video).answer()
    assert len(readers.opened) == 1
    assert [answer.timings.asked_together for answer in answers] == [5] * 5
    assert [answer.timings.read_seconds > 0 for answer in answers] == [True, False, False, False, False]
    assert again.timings.read_seconds == 0


def test_an_answer_is_the_same_alone_and_with_others(tiny: VideoQA, video: Path) -> None:
    expected = {
        question: tiny.ask(video, question).text for question in ("Describe the video.", "Which digit is shown?")
    }
    gate = threading.Event()

    def wait(*_: object) -> None:
        assert gate.wait(PATIENCE_SECONDS)

    with running(tiny, num_readers=1) as service:
        listeners = [Listener(wait) for _ in range(4)]
        questions = [*expected, *expected]
        for listener, question in zip(listeners, questions, strict=True):
            service.submit(Request(question, video, sampling=tiny.default_sampling), listener)
        gate.set()
        assert [listener.answer().text for listener in listeners] == [expected[question] for question in questions]
    assert all("".join(listener.pieces) == listener.answer().text for listener in listeners)


def test_a_short_answer_waits_for_no_long_one(tiny: VideoQA, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same batch."""
    gate = threading.Event()

    def open_late(path: Path, options: ReadOptions, spare: SpareProcess) -> VideoBeingOpened:
        assert gate.wait(PATIENCE_SECONDS)
        return VideoBeingOpened(path, options, spare)

    monkeypatch.setattr(sight_module, "VideoBeingOpened", open_late)
    before_its_end: list[bool] = []
    with running(tiny) as service:
        short = submit(service, video, "Which digit is shown?")
        long = submit(service, video, reacts=lambda *_: before_its_end.append(short.over.is_set()))
        gate.set()
        assert short.answer().tokens.new < long.answer().tokens.new
    assert long.answer().timings.asked_together == 2
    assert before_its_end.count(True) > 2


def test_reading_ends_where_nobody_waits(tiny: VideoQA, readers: Readers, video: Path) -> None:
    with running(tiny) as service:
        one, other = submit(service, video), submit(service, video)
        until(lambda: readers.opened and readers.opened[0].threads)
        service.room.drop(one.job)  # type: ignore[arg-type]
        assert not readers.opened[0].cancelled.is_set()
        service.room.drop(other.job)  # type: ignore[arg-type]
        assert readers.opened[0].cancelled.is_set()
        until(lambda: service.room.num_requests == 0)
        readers.may_read.set()
        assert submit(service, video).answer().text
        assert sample(service, "sfvqa_dropped_total") == 2
    assert len(readers.opened) == 2
    assert not any(each.over.is_set() for each in (one, other))


def test_opening_ends_where_nobody_waits(
    tiny: VideoQA, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a file whose opening hangs would hold its reader for as long as reading may take."""
    with running(tiny, num_readers=1) as service:
        with _opening_that_hangs(monkeypatch, tmp_path / "hangs") as is_hanging:
            hanging = submit(service, video)
            until(is_hanging)
        service.room.drop(hanging.job)  # type: ignore[arg-type]
        assert submit(service, SHAPES).answer().text


def test_nobody_waits_for_the_end_of_a_reading_that_is_dropped(
    tiny: VideoQA, video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs in the system ends late, and no request could come meanwhile: the lock is the service's."""
    waiting: list[threading.Thread] = []
    wait = subprocess.Popen.wait

    def note(process: "subprocess.Popen[bytes]", timeout: float | None = None) -> int:
        waiting.append(threading.current_thread())
        return wait(process, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", note)
    with running(tiny, num_readers=1) as service:
        with _opening_that_hangs(monkeypatch, tmp_path / "hangs") as is_hanging:
            hanging = submit(service, video)
            until(is_hanging)
        service.room.drop(hanging.job)  # type: ignore[arg-type]
        until(lambda: waiting)
    assert {thread.name for thread in waiting} == {"sfvqa-reading"}


@contextmanager
def _opening_that_hangs(monkeypatch: pytest.MonkeyPatch, sign: Path) -> Iterator[Callable[[], bool]]:
    """Processes that are started to read in the block do nothing but leave a sign."""
    program = f"import pathlib, time; pathlib.Path({str(sign)!r}).touch(); time.sleep(600)  # {{path!r}}"
    with monkeypatch.context() as patch:
        patch.setattr(isolated, "_PROGRAM", program)
        yield sign.exists


def test_a_video_that_waits_to_be_read_is_not_if_nobody_waits(tiny: VideoQA, readers: Readers, tmp_path: Path) -> None:
    videos = [Path(shutil.copy(SHAPES, tmp_path / f"{number}.mp4")) for number in range(3)]
    with running(tiny, num_readers=1) as service:
        asked = [submit(service, video) for video in videos]
        service.room.drop(asked[1].job)  # type: ignore[arg-type]
        readers.may_read.set()
        assert asked[0].answer().text
        assert asked[2].answer().text
    assert len(readers.opened) == 2


def test_encoding_ends_where_nobody_waits(tiny: VideoQA, readers: Readers, video: Path) -> None:
    def drop(listener: Listener, event: Event) -> None:
        if isinstance(event, EncodeProgress) and event.stage is EncodeStage.ENCODE:
            assert listener.job is not None
            service.room.drop(listener.job)

    with running(tiny) as service:
        dropped = submit(service, video, reacts=drop)
        readers.may_read.set()
        until(lambda: service.room.num_requests == 0)
        assert submit(service, video).answer().text
    stages = [event.stage for event in dropped.events if isinstance(event, EncodeProgress)]
    assert stages.count(EncodeStage.ENCODE) == 1  # of two
    assert len(readers.opened) == 2  # what was encoded of it is not kept


def test_a_dropped_answer_ends_and_those_beside_it_go_on(tiny: VideoQA, readers: Readers, video: Path) -> None:
    def drop(listener: Listener, event: Event) -> None:
        if isinstance(event, str):
            assert listener.job is not None
            service.room.drop(listener.job)

    with running(tiny) as service:
        dropped, whole = submit(service, video, reacts=drop), submit(service, video)
        readers.may_read.set()
        answer = whole.answer()
    assert answer.timings.asked_together == 2
    assert "".join(whole.pieces) == answer.text
    assert len(dropped.pieces) == 1
    assert not dropped.over.is_set()


def test_a_dropped_answer_alone_is_computed_no_further(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _watch_runs(monkeypatch)

    def drop(listener: Listener, event: Event) -> None:
        if isinstance(event, str):
            assert listener.job is not None
            service.room.drop(listener.job)

    with running(tiny) as service:
        submit(service, video, reacts=drop)
        readers.may_read.set()
        until(lambda: service.room.num_requests == 0)
        assert submit(service, video).answer().text
    assert runs[0].num_steps <= 2 < runs[1].num_steps


def test_too_many_are_refused(tiny: VideoQA, readers: Readers, video: Path) -> None:
    with running(tiny, most_requests=2) as service:
        asked = [submit(service, video), submit(service, video)]
        with pytest.raises(ServerBusyError, match="2 requests"):
            submit(service, video)
        assert sample(service, "sfvqa_busy_total") == 1
        assert sample(service, "sfvqa_waiting") == 2
        readers.may_read.set()
        assert all(each.answer().text for each in asked)
        assert submit(service, video).answer().text


def test_what_cannot_be_is_refused_at_once(tiny: VideoQA, video: Path) -> None:
    with running(tiny, most_frames=8, most_frames_together=8) as service:
        with pytest.raises(UsageError, match="16 frames"):
            submit(service, video)
        with pytest.raises(PromptTooLongError, match="characters"):
            submit(service, None, "a" * 200_000)
        with pytest.raises(UsageError, match="empty"):
            submit(service, None, " ")
        until(lambda: service.room.num_requests == 0)


def test_a_video_that_fails_fails_for_all_and_is_tried_again(tiny: VideoQA, readers: Readers, video: Path) -> None:
    with running(tiny) as service:
        asked = [submit(service, video) for _ in range(3)]
        readers.error = SfvqaError("It is damaged.", "Copy it again.")
        readers.may_read.set()
        errors = [each.last() for each in asked]
        assert [str(error) for error in errors] == ["It is damaged. Copy it again."] * 3
        assert all(isinstance(error, Exception) and error.__traceback__ is None for error in errors)
        readers.error = None
        assert submit(service, video).answer().text
        assert sample(service, "sfvqa_failures_total") == 3


def test_what_is_wrong_with_a_file_is_found_out_once(tiny: VideoQA, readers: Readers, video: Path) -> None:
    """Until it changes or a while has passed; what may pass at once is tried again."""
    readers.error = UnreadableVideoError("It is no video.")
    readers.may_read.set()
    with running(tiny) as service:
        for _ in range(3):
            assert isinstance(submit(service, video).last(), UnreadableVideoError)
        assert len(readers.opened) == 1
        until(lambda: service.room.num_requests == 0)
        video.write_bytes(video.read_bytes() + b"\0")
        readers.error = ReadTimeoutError("It takes too long.")
        for _ in range(2):
            assert isinstance(submit(service, video).last(), ReadTimeoutError)
        assert len(readers.opened) == 3
        readers.error, service.room.unseeable_seconds = UnreadableVideoError("It is no video."), 0.0
        for _ in range(2):
            assert isinstance(submit(service, video).last(), UnreadableVideoError)
        assert len(readers.opened) == 5


def test_a_disk_that_fails_is_no_fault_of_the_file(tiny: VideoQA, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the reading process comes without its cause, and was taken for one of the video."""
    fails = "process.open_here = lambda *_: open('/nowhere')"
    program = "import sys; sys.path[:] = {path!r}; from sfvqa.video.readers import isolated as process; "
    with running(tiny) as service:
        service.room.unseeable_seconds = 0.0
        with monkeypatch.context() as patch:
            patch.setattr(isolated, "_PROGRAM", f"{program}{fails}; process.main()")
            assert "FileNotFoundError" in str(submit(service, video).last())
        assert submit(service, video).answer().text


def test_who_allows_more_time_to_read_has_it(tiny: VideoQA, readers: Readers, video: Path) -> None:
    """Whoever was first to ask about the video."""

    def hear(_: Listener, event: Event) -> None:
        if isinstance(event, ReadTimeoutError):
            readers.error = None

    readers.error = ReadTimeoutError("It takes too long.")
    with running(tiny, num_readers=1) as service:
        listeners = [Listener(hear) for _ in range(3)]
        for listener, seconds in zip(listeners, (2, 1, 600), strict=True):
            request = Request("Describe it.", video, sampling=_FRAMES, reading=ReadOptions(timeout_seconds=seconds))
            service.submit(request, listener)
        readers.may_read.set()
        assert [type(listener.last()) for listener in listeners] == [ReadTimeoutError, ReadTimeoutError, Answer]
    assert [options.timeout_seconds for options in readers.options] == [2, 600]


class WatchedRun(AnswerRun):
    """A run that fails as a test wants it to."""

    fails: Callable[[int, int], Exception | None] = lambda *_: None
    all: ClassVar[list["WatchedRun"]]

    def __init__(self, checkpoint: Any, questions: Sequence[Asked], *args: Any, **more: Any) -> None:
        super().__init__(checkpoint, questions, *args, **more)
        self.size, self.num_steps = len(questions), 0
        self.all.append(self)

    def steps(self) -> Generator[list[str], None, None]:
        for pieces in super().steps():
            if (error := type(self).fails(len(self._rows), self.num_steps)) is not None:
                raise error
            self.num_steps += 1
            yield pieces


def _watch_runs(
    monkeypatch: pytest.MonkeyPatch, fails: Callable[[int, int], Exception | None] = lambda *_: None
) -> list[WatchedRun]:
    class Run(WatchedRun):
        all: ClassVar[list[WatchedRun]] = []

    Run.fails = staticmethod(fails)
    monkeypatch.setattr(model_thread_module, "AnswerRun", Run)
    return Run.all


def test_what_fails_together_is_tried_alone(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was told of an answer before is not told again."""
    runs = _watch_runs(monkeypatch, lambda size, step: ValueError("together") if (size, step) == (3, 2) else None)
    with running(tiny) as service:
        asked = [submit(service, video) for _ in range(3)]
        readers.may_read.set()
        answers = [each.answer() for each in asked]
    assert [run.size for run in runs] == [3, 1, 1, 1]
    assert ["".join(each.pieces) for each in asked] == [answer.text for answer in answers]


def test_of_those_tried_alone_who_is_over_makes_place(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For one who waits, which kept waiting until all were over."""
    _watch_runs(monkeypatch, lambda size, step: ValueError("together") if (size, step) == (3, 2) else None)
    all_were_over: list[bool] = []

    def note(listener: Listener, _: Event) -> None:
        if listener.pieces and not all_were_over:
            all_were_over.append(all(each.over.is_set() for each in asked))

    with running(tiny, batch_size=3, patience_seconds=0.0) as service:
        asked = [submit(service, video) for _ in range(3)]
        late = submit(service, video, reacts=note)
        readers.may_read.set()
        assert all(each.answer().text for each in (*asked, late))
    assert all_were_over == [False]


def test_memory_that_runs_out_halves_the_batch(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For good: later batches are no larger."""
    runs = _watch_runs(monkeypatch, lambda size, _: OutOfMemoryError("Memory ran out.") if size > 2 else None)
    with running(tiny) as service:
        asked = [submit(service, video) for _ in range(4)]
        readers.may_read.set()
        assert all(each.answer().text for each in asked)
        gate = submit(service, video, reacts=lambda *_: None)
        more = [submit(service, video) for _ in range(4)]
        assert all(each.answer().text for each in (gate, *more))
    assert [run.size for run in runs[:3]] == [4, 2, 2]
    assert max(run.size for run in runs[1:]) <= 2


def test_memory_that_runs_out_alone_is_an_error_once_nothing_is_kept(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers.may_read.set()
    with running(tiny) as service:
        assert submit(service, video).answer().text  # its prompt is kept
        runs = _watch_runs(monkeypatch, lambda *_: OutOfMemoryError("Memory ran out."))
        assert isinstance(submit(service, video).last(), OutOfMemoryError)
        assert [run.size for run in runs] == [1, 1]
        assert submit(service, video).over.wait(PATIENCE_SECONDS)
        assert len(runs) == 3


def test_videos_that_are_kept_leave_the_memory_to_new_ones(
    tiny: VideoQA, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or none could be looked at for as long as they fill it; where nothing is kept, it is an error at once."""
    videos = [Path(shutil.copy(SHAPES, tmp_path / f"{number}.mp4")) for number in range(2)]
    readers.may_read.set()
    num_tried = 0

    def encode(*_: Any, **__: Any) -> Generator[EncodeProgress, None, EncodedVideo]:
        nonlocal num_tried
        num_tried += 1
        yield EncodeProgress(EncodeStage.ENCODE, 0, 1)
        raise OutOfMemoryError("Memory ran out.")

    def encode_beside_none(*args: Any, **options: Any) -> Generator[EncodeProgress, None, EncodedVideo]:
        return encode() if service.room.num_kept_bytes else whole(*args, **options)

    whole = tiny.encode_progressively
    with running(tiny) as service:
        assert submit(service, videos[0]).answer().text
        monkeypatch.setattr(tiny, "encode_progressively", encode_beside_none)
        assert submit(service, videos[1]).answer().text
        assert num_tried == 1
        monkeypatch.setattr(tiny, "encode_progressively", encode)
        assert isinstance(submit(service, videos[0]).last(), OutOfMemoryError)
        assert num_tried == 3
        assert isinstance(submit(service, videos[0]).last(), OutOfMemoryError)
        assert num_tried == 4


def test_a_second_try_begins_without_what_the_first_held(
    tiny: VideoQA, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Python 3.12 on, an error that took the place of another kept the tensors of the first until the next look
    for garbage; here it is made to on any."""
    videos = [Path(shutil.copy(SHAPES, tmp_path / f"{number}.mp4")) for number in range(2)]
    readers.may_read.set()
    held = list[weakref.ref[Listener]]()
    were_gone = list[bool]()

    def encode(*args: Any, **options: Any) -> Generator[EncodeProgress, None, EncodedVideo]:
        if held:
            were_gone.append(held[0]() is None)
            return (yield from whole(*args, **options))
        tensor = Listener()
        held.append(weakref.ref(tensor))
        error = OutOfMemoryError("Memory ran out.")
        raise error

    whole = tiny.encode_progressively
    with running(tiny) as service:
        assert submit(service, videos[0]).answer().text
        monkeypatch.setattr(tiny, "encode_progressively", encode)
        gc.disable()
        try:
            assert submit(service, videos[1]).answer().text
        finally:
            gc.enable()
    assert were_gone == [True]


def test_what_is_kept_running_memory_out_halves_no_batch(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer alone had no room beside a prompt that was kept, which says nothing of many at a time."""
    with running(tiny) as service:
        readers.may_read.set()
        assert submit(service, video).answer().text  # its prompt is kept
        with monkeypatch.context() as patch:
            errors = [OutOfMemoryError("Memory ran out.")]
            _watch_runs(patch, lambda *_: errors.pop() if errors else None)
            assert submit(service, video).answer().text
        readers.may_read.clear()
        other = Path(shutil.copy(SHAPES, video.with_name("other.mp4")))
        asked = [submit(service, other) for _ in range(4)]
        readers.may_read.set()
        assert [each.answer().timings.asked_together for each in asked] == [4] * 4


def test_requests_may_come_while_it_looks_for_what_is_kept(
    tiny: VideoQA, readers: Readers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dict that grows while somebody goes through it raised an error there, which ended the service."""
    videos = [Path(shutil.copy(SHAPES, tmp_path / f"{number}.mp4")) for number in range(3)]
    submitting: list[threading.Thread] = []
    late = Listener()

    class Sights(dict[Any, Any]):
        """Once memory ran out, a request comes while they are gone through; it waits where that is under the lock."""

        def values(self) -> Any:
            for value in super().values():
                yield value
                if ran_out.is_set() and not submitting:
                    request = Request("Describe the video.", videos[2], sampling=_FRAMES)
                    submitting.append(threading.Thread(target=service.submit, args=(request, late)))
                    submitting[0].start()
                    submitting[0].join(0.5)

    ran_out = threading.Event()

    def run_out(*_: int) -> Exception | None:
        if ran_out.is_set():
            return None
        ran_out.set()
        return OutOfMemoryError("Memory ran out.")

    _watch_runs(monkeypatch, run_out)
    with running(tiny, num_readers=1) as service:
        monkeypatch.setattr(service.room, "_sights", Sights())
        asked = [submit(service, video) for video in videos[:2]]
        readers.may_read.set()
        assert isinstance(asked[0].last(), OutOfMemoryError)
        assert asked[1].answer().text
        assert late.answer().text
        assert service.room.failure is None
        submitting[0].join()


def test_an_error_that_was_not_foreseen_is_logged_and_costs_one_request(
    tiny: VideoQA,
    readers: Readers,
    video: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    readers.may_read.set()
    with running(tiny) as service:
        with monkeypatch.context() as patch:
            _watch_runs(patch, lambda *_: ValueError("a secret"))
            error = submit(service, video).last()
        assert submit(service, video).answer().text
    assert isinstance(error, ServerError)
    assert "secret" not in str(error)
    assert "a secret" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_a_gpu_that_fails_ends_the_service(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _watch_runs(monkeypatch, lambda *_: RuntimeError("CUDA error: unspecified launch failure"))
    with running(tiny) as service:
        asked = [submit(service, video) for _ in range(2)]
        readers.may_read.set()
        assert all(isinstance(each.last(), DeviceLostError) for each in asked)
        until(lambda: service.room.failure is not None)
        with pytest.raises(DeviceLostError):
            submit(service, video)


@pytest.mark.parametrize(("kept_bytes", "num_read"), [(0, 4), (1 << 30, 2)])
def test_encoded_videos_are_kept_by_their_size(
    tiny: VideoQA, readers: Readers, tmp_path: Path, kept_bytes: int, num_read: int
) -> None:
    videos = [Path(shutil.copy(SHAPES, tmp_path / f"{number}.mp4")) for number in range(2)]
    readers.may_read.set()
    with running(tiny, kept_bytes=kept_bytes) as service:
        for video in (*videos, *videos):
            assert submit(service, video).answer().text
            until(lambda: service.room.num_running == 0)
            assert service.room.num_kept_bytes <= kept_bytes
    assert len(readers.opened) == num_read


def test_a_file_that_was_changed_is_another_video(tiny: VideoQA, readers: Readers, video: Path) -> None:
    readers.may_read.set()
    with running(tiny) as service:
        assert submit(service, video).answer().text
        video.write_bytes(video.read_bytes() + b"\0")
        assert submit(service, video).answer().text
    assert len(readers.opened) == 2


def test_a_file_that_was_changed_under_its_old_time_is_another_video(
    tiny: VideoQA, readers: Readers, video: Path
) -> None:
    """As `rsync --inplace --times` leaves it, for one."""
    readers.may_read.set()
    with running(tiny) as service:
        assert submit(service, video).answer().text
        before = video.stat()
        content = bytearray(video.read_bytes())
        content[-1] ^= 1
        video.write_bytes(content)
        os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert submit(service, video).answer().text
    assert len(readers.opened) == 2


def test_pictures_in_another_order_are_another_video(tiny: VideoQA, readers: Readers, tmp_path: Path) -> None:
    for number in (1, 2):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    readers.may_read.set()
    with running(tiny) as service:
        assert submit(service, tmp_path).answer().text
        (tmp_path / "1.png").rename(tmp_path / "3.png")
        assert submit(service, tmp_path).answer().text
    assert len(readers.opened) == 2


def test_a_stopping_service_ends_what_it_took(tiny: VideoQA, readers: Readers, video: Path) -> None:
    with running(tiny) as service:
        asked = submit(service, video)
        service.room.stop_accepting()
        with pytest.raises(ServerStoppingError):
            submit(service, video)
        readers.may_read.set()
        assert asked.answer().text


def test_what_is_cut_is_told_so(tiny: VideoQA, readers: Readers, video: Path) -> None:
    def cut(_: Listener, event: Event) -> None:
        if isinstance(event, str):
            service.room.cut()

    with running(tiny) as service:
        written, waiting = submit(service, video, reacts=cut), submit(service, SHAPES)
        readers.may_read.set()
        assert "is cut" in str(written.last())
        assert isinstance(waiting.last(), ServerStoppingError | Answer)
        until(lambda: service.room.num_requests == 0)
    assert len(written.pieces) == 1


def test_a_late_request_is_answered_beside_a_long_one(tiny: VideoQA, readers: Readers, video: Path) -> None:
    """After its patience, which is none here."""
    late: list[Listener] = []

    with running(tiny, patience_seconds=0.0) as service:
        heard: list[bool] = []

        def long(_: Listener, event: Event) -> None:
            if isinstance(event, str) and not late:
                late.append(submit(service, video, "Which digit is shown?", max_new_tokens=3))
            heard.append(bool(late) and late[0].over.is_set())

        first = submit(service, video, reacts=long)
        readers.may_read.set()
        assert first.answer().tokens.new > 8
        assert late[0].answer().tokens.new <= 3
    assert any(heard[:-1])


def test_what_does_not_go_together_is_answered_apart(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _watch_runs(monkeypatch)
    with running(tiny) as service:
        asked = [submit(service, video, max_new_tokens=number) for number in (4, 5, 4)]
        readers.may_read.set()
        assert [each.answer().tokens.new for each in asked] == [4, 5, 4]
    assert sorted(run.size for run in runs) == [1, 2]


def test_frames_bound_a_batch(tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a request for as many frames as there is memory for, no two are answered at a time."""
    runs = _watch_runs(monkeypatch)
    with running(tiny, most_frames=16, most_frames_together=40) as service:
        asked = [submit(service, video) for _ in range(5)]
        readers.may_read.set()
        assert all(each.answer().text for each in asked)
    assert max(run.size for run in runs) == 2


def test_a_request_joins_an_answer_that_is_being_written(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _watch_runs(monkeypatch)
    late: list[Listener] = []

    def ask_another(listener: Listener, _: Event) -> None:
        if listener.pieces and not late:
            late.append(submit(service, video, "Which digit is shown?"))

    with running(tiny) as service:
        first = submit(service, video, reacts=ask_another)
        readers.may_read.set()
        answer = first.answer()
        assert late[0].answer().text == "".join(late[0].pieces)
        assert len(runs) == 1
        assert late[0].answer().text == submit(service, video, "Which digit is shown?").answer().text
    assert (answer.timings.asked_together, late[0].answer().timings.asked_together) == (1, 2)


def test_what_fails_with_one_that_joined_is_tried_alone(
    tiny: VideoQA, readers: Readers, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _watch_runs(monkeypatch, lambda size, step: ValueError("together") if (size, step) == (2, 4) else None)
    late: list[Listener] = []

    def ask_another(listener: Listener, _: Event) -> None:
        if listener.pieces and not late:
            late.append(submit(service, video))

    with running(tiny) as service:
        first = submit(service, video, reacts=ask_another)
        readers.may_read.set()
        assert first.answer().text == late[0].answer().text
    assert ["".join(each.pieces) for each in (first, late[0])] == [first.answer().text] * 2
    assert len(runs) == 3
