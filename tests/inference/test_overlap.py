"""Reading overlaps encoding: what comes out is the same to the bit, in less time, in bounded memory, with an end."""

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sfvqa.checkpoints.memory import CHUNKS_AHEAD
from sfvqa.errors import OutOfMemoryError, RangeOutsideVideoError, UnreadableVideoError
from sfvqa.inference import reading_ahead
from sfvqa.inference.encode import (
    EncodedVideo,
    EncodeProgress,
    EncodeStage,
    encode_progressively,
    pixel_values,
)
from sfvqa.inference.reading_ahead import Reading, in_chunks
from sfvqa.inference.stopwatch import Stopwatch, seconds_together
from sfvqa.inference.video_qa import VideoQA
from sfvqa.model import SlowFastForConditionalGeneration, VisualTokens
from sfvqa.video import ReadOptions, ReadProgress, SamplingOptions, SamplingStrategy, VideoReader, open_video, read_clip
from sfvqa.video.clip import CHUNK_SIZE
from sfvqa.video.fitting import FitSquare
from sfvqa.video.readers import isolated
from tests.inference.fake_reader import FakeReader
from tests.inference.steps import run
from tests.video.readers.test_damaged import RECIPES, wipe_group
from tests.video.videos import write_video
from tests.windows import needs_signals

ALL_FRAMES = SamplingOptions(num_frames=1000)
HERE = ReadOptions(isolated=False)
IN_FLIGHT = CHUNKS_AHEAD + 2


pytestmark = pytest.mark.usefixtures("no_process_is_left")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Whatever happened, none stays behind."""
    threads = threading.active_count()
    yield
    assert threading.active_count() == threads


@pytest.fixture
def model(qa: VideoQA) -> SlowFastForConditionalGeneration:
    return qa.checkpoint.model


def see(
    model: SlowFastForConditionalGeneration,
    video: Path | VideoReader,
    sampling: SamplingOptions = ALL_FRAMES,
    chunks_ahead: int = CHUNKS_AHEAD,
) -> tuple[list[EncodeProgress], EncodedVideo]:
    return run(encode_progressively(model, video, sampling, chunks_ahead=chunks_ahead))


def all_at_once(model: SlowFastForConditionalGeneration, path: Path, sampling: SamplingOptions) -> VisualTokens:
    """First all reading, then all encoding."""
    clip = read_clip(path, sampling, fit=FitSquare(model.config.vision.image_size))
    chunks = pixel_values(clip.frames, model.config.vision).split(CHUNK_SIZE)
    with torch.inference_mode():
        tokens = torch.cat(list(model.encode_frames(chunks)))
        return model.split(model.pool(tokens) if len(tokens) > 1 else tokens)


def is_same(one: VisualTokens, other: VisualTokens) -> bool:
    return torch.equal(one.slow, other.slow) and torch.equal(one.fast, other.fast)


def on_the_tower(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]
) -> list[int]:
    """Call `before` with the number of each call of the vision tower; returns how many frames each one got."""
    forward: Callable[[torch.Tensor], torch.Tensor] = model.vision_tower.forward
    sizes = list[int]()

    def watched(pixel_values: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixel_values))
        before(len(sizes))
        return forward(pixel_values)

    monkeypatch.setattr(model.vision_tower, "forward", watched)
    return sizes


# --- the same comes out ---


@pytest.mark.parametrize("num_frames", [1, 7, 8, 9, 20])
def test_tokens_are_the_same_to_the_bit(
    model: SlowFastForConditionalGeneration, video_path: Path, num_frames: int
) -> None:
    sampling = SamplingOptions(num_frames=num_frames)
    expected = all_at_once(model, video_path, sampling)
    for chunks_ahead in (0, 1, CHUNKS_AHEAD, 100):
        _, encoded = see(model, video_path, sampling, chunks_ahead)
        assert len(encoded.indices) == num_frames
        assert is_same(encoded.visual_tokens, expected)


def test_chunks_are_of_the_frames_that_came(model: SlowFastForConditionalGeneration, tmp_path: Path) -> None:
    """A file with damage in its middle: what is missing is in no chunk, and counted."""
    whole = write_video(tmp_path / "whole.mp4", RECIPES["cut.mp4"])
    path = wipe_group(whole, tmp_path / "wiped.mp4", 2)
    expected = all_at_once(model, path, ALL_FRAMES)
    encoded = [see(model, path, chunks_ahead=chunks_ahead)[1] for chunks_ahead in (0, CHUNKS_AHEAD)]
    assert 100 < len(encoded[0].indices) < 150
    for one in encoded:
        assert is_same(one.visual_tokens, expected)
        assert "frames asked for could not be decoded" in one.warnings[0]
    assert encoded[0].indices == encoded[1].indices
    assert encoded[0].warnings == encoded[1].warnings


def test_a_folder_of_pictures_of_which_the_last_ones_cannot_be_read(
    model: SlowFastForConditionalGeneration, tmp_path: Path
) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (50 + number, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    for number in (3, 10, 11):
        (tmp_path / f"{number}.png").write_bytes(b"broken")
    expected = all_at_once(model, tmp_path, ALL_FRAMES)
    for chunks_ahead in (0, CHUNKS_AHEAD):
        _, encoded = see(model, tmp_path, chunks_ahead=chunks_ahead)
        assert encoded.indices == (0, 1, 2, 4, 5, 6, 7, 8, 9)
        assert is_same(encoded.visual_tokens, expected)


@pytest.mark.parametrize("reading", [ReadOptions(), HERE], ids=["isolated", "here"])
def test_a_reader_that_is_open_stays_open_for_its_owner(
    model: SlowFastForConditionalGeneration, video_path: Path, reading: ReadOptions
) -> None:
    expected = all_at_once(model, video_path, ALL_FRAMES)
    with open_video(video_path, reading) as reader:
        before = [frame.pixels for frame in reader.read([2, 11])]
        for _ in range(2):
            assert is_same(see(model, reader)[1].visual_tokens, expected)
        np.testing.assert_array_equal([frame.pixels for frame in reader.read([2, 11])], before)


def test_cuts_are_looked_for_before_frames_are_read(model: SlowFastForConditionalGeneration, video_path: Path) -> None:
    sampling = SamplingOptions(num_frames=9, strategy=SamplingStrategy.SCENE)
    (steps, encoded), (_, other) = (see(model, video_path, sampling, chunks_ahead) for chunks_ahead in (2, 0))
    assert is_same(encoded.visual_tokens, other.visual_tokens)
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == [EncodeStage.SEARCH, EncodeStage.READ, EncodeStage.ENCODE]


# --- in less time, and what it says of that ---


def test_the_clock_sees_less_than_the_sum(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_tower(model, monkeypatch, lambda _: time.sleep(0.16))
    began = time.perf_counter()
    _, encoded = see(model, FakeReader(48, seconds_a_frame=0.02))
    wall = time.perf_counter() - began
    assert encoded.read_seconds >= 48 * 0.02
    assert encoded.encode_seconds >= 6 * 0.16
    assert wall < 0.75 * (encoded.read_seconds + encoded.encode_seconds)
    assert encoded.read_seconds + encoded.encode_seconds - encoded.overlap_seconds == pytest.approx(wall, abs=0.1)


def test_without_a_thread_nothing_overlaps(model: SlowFastForConditionalGeneration, video_path: Path) -> None:
    assert see(model, video_path, chunks_ahead=0)[1].overlap_seconds == 0.0


def test_waiting_for_room_is_not_reading(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_tower(model, monkeypatch, lambda _: time.sleep(0.1))
    _, encoded = see(model, FakeReader(64))
    assert encoded.encode_seconds >= 0.8
    assert encoded.read_seconds < 0.4


def test_opening_counts_as_reading_whoever_opened(model: SlowFastForConditionalGeneration) -> None:
    reader = FakeReader(3)
    reader.open_seconds = 1000.0
    assert 1000 < see(model, reader)[1].read_seconds < 1001


def test_seconds_leave_out_what_the_caller_does_once_there_is_no_room(model: SlowFastForConditionalGeneration) -> None:
    steps = encode_progressively(model, FakeReader(80), ALL_FRAMES)
    slept = 0.0
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            encoded: EncodedVideo = end.value
            break
        if step.stage is EncodeStage.ENCODE:
            time.sleep(0.1)
            slept += 0.1
    assert slept > 0.9
    assert encoded.read_seconds + encoded.encode_seconds < 0.6


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([], [(0, 1)], 0),
        ([(0, 1)], [(1, 2)], 0),
        ([(0, 10)], [(1, 2), (3, 4), (9, 12)], 3),
        ([(0, 2), (3, 5), (6, 7)], [(1, 4), (6, 9)], 3),
    ],
)
def test_seconds_together_are_those_in_both(
    one: list[tuple[float, float]], other: list[tuple[float, float]], expected: float
) -> None:
    first, second = Stopwatch(), Stopwatch()
    first.spans, second.spans = one, other
    assert seconds_together(first, second) == seconds_together(second, first) == expected


# --- progress ---


@pytest.mark.parametrize(("num_frames", "damaged"), [(30, ()), (30, (4, 5)), (32, range(24, 32)), (33, (32,))])
@pytest.mark.parametrize("chunks_ahead", [0, CHUNKS_AHEAD])
def test_every_stage_gets_on_and_ends_with_all_there_is(
    model: SlowFastForConditionalGeneration, num_frames: int, damaged: tuple[int, ...], chunks_ahead: int
) -> None:
    reader = FakeReader(num_frames, seconds_a_frame=0.002, damaged=damaged)
    steps, encoded = see(model, reader, chunks_ahead=chunks_ahead)
    count = num_frames - len(damaged)
    assert len(encoded.indices) == count
    for stage in (EncodeStage.READ, EncodeStage.ENCODE):
        of_stage = [step for step in steps if step.stage is stage]
        assert all(one.done <= other.done and one.total >= other.total for one, other in pairwise(of_stage))
        assert all(step.done <= step.total for step in of_stage)
        assert of_stage[-1].done == count
    assert steps[0] == EncodeProgress(EncodeStage.READ, 0, num_frames)
    assert steps[-1] == EncodeProgress(EncodeStage.ENCODE, count, count)
    stages = [step.stage for step in steps]
    assert stages.index(EncodeStage.ENCODE) < len(stages) - 1 - stages[::-1].index(EncodeStage.READ), "they alternate"


# --- in bounded memory ---


@pytest.mark.parametrize(("chunks_ahead", "most"), [(0, 1), (1, 3), (CHUNKS_AHEAD, IN_FLIGHT)])
def test_a_fast_reader_waits_for_a_slow_tower(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch, chunks_ahead: int, most: int
) -> None:
    """Counted are the frames that were read and are not encoded, and the chunks that are really in memory."""
    reader, frames_ahead, num_alive = FakeReader(96), list[int](), list[int]()
    chunks = list[weakref.ref[object]]()

    def slowly(call: int) -> None:
        time.sleep(0.1)
        frames_ahead.append(reader.num_given - CHUNK_SIZE * (call - 1))

    def watched(*args: object) -> Reading:
        inner = in_chunks(*args)  # type: ignore[arg-type]
        while True:
            try:
                item = next(inner)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if not isinstance(item, ReadProgress):
                chunks.append(weakref.ref(item))
                num_alive.append(sum(ref() is not None for ref in chunks))
            yield item

    on_the_tower(model, monkeypatch, slowly)
    monkeypatch.setattr(reading_ahead, "in_chunks", watched)
    see(model, reader, chunks_ahead=chunks_ahead)
    assert len(chunks) == 12
    assert max(num_alive) == most
    assert max(frames_ahead) == most * CHUNK_SIZE


# --- with an end ---


@pytest.mark.parametrize("num_steps", [0, 1, 5, 9, 14])
def test_leaving_early_ends_the_thread_and_the_process(
    model: SlowFastForConditionalGeneration, video_path: Path, num_steps: int
) -> None:
    with open_video(video_path) as reader:
        for video in (reader, video_path):
            steps = encode_progressively(model, video, ALL_FRAMES)
            for _ in range(num_steps):
                next(steps)
            steps.close()
            assert "sfvqa-reading" not in {thread.name for thread in threading.enumerate()}
        assert len(see(model, reader)[1].indices) == 20, "its owner can go on with it"


def test_leaving_while_nothing_comes_is_not_waiting_for_it(model: SlowFastForConditionalGeneration) -> None:
    """What the thread hangs in is ended, or it would have to be waited for."""

    def hang(index: int) -> None:
        if index == 3:
            reader.cancelled.wait(60)

    reader = FakeReader(20, before=hang)
    steps = encode_progressively(model, reader, ALL_FRAMES)
    while next(steps).done < 3:
        pass
    began = time.monotonic()
    steps.close()
    assert time.monotonic() - began < 5
    assert not reader.is_closed


HANGING = """
import sys; sys.path[:] = {{path!r}}
import time
from sfvqa.video.readers import isolated as process
from sfvqa.video.readers.pyav import PyAVReader
PyAVReader.{method} = lambda *_: time.sleep(60)
process.main()
"""


@needs_signals
@pytest.mark.parametrize("method", ["_prepare", "pictures"])
def test_ctrl_c_is_noticed_while_the_reader_hangs(
    model: SlowFastForConditionalGeneration, video_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolated, "_PROGRAM", HANGING.format(method=method))
    press = threading.Timer(1.0, os.kill, [os.getpid(), signal.SIGINT])
    press.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        see(model, video_path)
    assert time.monotonic() - began < 10
    press.join()


def test_ctrl_c_in_the_vision_tower_leaves_the_reader_to_its_owner(
    model: SlowFastForConditionalGeneration, video_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(call: int) -> None:
        if call == 2:
            raise KeyboardInterrupt

    with open_video(video_path) as reader:
        with monkeypatch.context() as patch:
            on_the_tower(model, patch, interrupt)
            with pytest.raises(KeyboardInterrupt):
                see(model, reader)
        assert len(see(model, reader)[1].indices) == 20


@pytest.mark.parametrize("chunks_ahead", [0, CHUNKS_AHEAD])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnreadableVideoError("It broke.", "Mend it."), UnreadableVideoError),
        (MemoryError(), OutOfMemoryError),
        (ZeroDivisionError("no"), ZeroDivisionError),
        (SystemExit(3), SystemExit),
    ],
)
def test_an_error_of_reading_keeps_its_type(
    model: SlowFastForConditionalGeneration, error: BaseException, expected: type[BaseException], chunks_ahead: int
) -> None:
    def fail(index: int) -> None:
        if index == 19:
            raise error

    with pytest.raises(expected) as caught:
        see(model, FakeReader(40, before=fail), chunks_ahead=chunks_ahead)
    if expected is OutOfMemoryError:
        assert "while reading the video" in str(caught.value)
    else:
        assert caught.value is error


def test_an_error_of_reading_is_raised_before_more_is_encoded(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks that wait are of a video nobody will be told of."""
    failed = threading.Event()

    def fail(index: int) -> None:
        if index == 20:
            failed.set()
            raise OSError("gone")

    def wait(_call: int) -> None:
        failed.wait(30)
        time.sleep(0.1)

    sizes = on_the_tower(model, monkeypatch, wait)
    with pytest.raises(OSError, match="gone"):
        see(model, FakeReader(40, before=fail))
    assert sizes == [8]


def test_an_error_keeps_nothing_of_what_was_seen(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception and its traceback that hold each other would keep the tokens on the GPU."""
    made = list[weakref.ref[torch.Tensor]]()
    encode_frames = model.encode_frames

    def watched(chunks: object) -> Iterator[torch.Tensor]:
        for tokens in encode_frames(chunks):  # type: ignore[arg-type]
            made.append(weakref.ref(tokens))
            yield tokens

    def fail(index: int) -> None:
        if index == 30:
            raise OSError("gone")

    monkeypatch.setattr(model, "encode_frames", watched)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(OSError, match="gone") as caught:
            see(model, FakeReader(40, seconds_a_frame=0.01, before=fail))
        del caught
        assert made
        assert [ref() for ref in made] == [None] * len(made)
    finally:
        gc.enable()


def test_an_error_of_the_vision_tower_stops_reading(
    model: SlowFastForConditionalGeneration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(call: int) -> None:
        if call == 2:
            raise RuntimeError("something else")

    on_the_tower(model, monkeypatch, fail)
    reader = FakeReader(200, seconds_a_frame=0.001)
    with pytest.raises(RuntimeError, match="something else"):
        see(model, reader)
    assert reader.num_given <= (IN_FLIGHT + 1) * CHUNK_SIZE
    assert reader.cancelled.is_set()
    assert not reader.is_closed


def test_what_is_wrong_with_the_range_is_said(model: SlowFastForConditionalGeneration, video_path: Path) -> None:
    with pytest.raises(RangeOutsideVideoError):
        see(model, video_path, SamplingOptions(start_seconds=60))


def test_a_reader_is_cancelled_only_when_it_is_left_early(model: SlowFastForConditionalGeneration) -> None:
    """To cancel is to end the process, which its owner would have to start again."""
    reader = FakeReader(20)
    see(model, reader)
    (thread,) = reader.threads
    assert thread is not threading.current_thread()
    assert not reader.cancelled.is_set()
