"""Windows: which there are, and that reading them in one pass gives what reading each alone does, and holds little."""

import weakref
from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfvqa.errors import RangeOutsideVideoError, UnreadableVideoError, UsageError
from sfvqa.video import (
    Clip,
    CropMode,
    ReaderName,
    SamplingOptions,
    SamplingStrategy,
    VideoInfo,
    VideoReader,
    WindowOptions,
    open_video,
    read_clip_progressively,
)
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit, FitSquare
from sfvqa.video.readers.seeking import Handle
from sfvqa.video.reading import choose_unread
from sfvqa.video.windows import Window, WindowsReader, plan_windows

from .conftest import WriteVideo
from .here import reader_here
from .readers.test_damaged import wipe_group
from .videos import Recipe, constant_rate, number_in

FIT = FitSquare(96, CropMode.SQUASH)
VARIABLE = [0, 40, 80, 120, 900, 940, 2000, 2040, 2080, 5000, 5040, 5080, 5120, 9000, 9040, 9500]
WHOLE = Recipe(constant_rate(300), group=30)


# --- which there are ---


@pytest.mark.parametrize(
    ("length", "overlap", "expected"),
    [("30s", None, WindowOptions(30)), ("1:30", "5s", WindowOptions(90, 5)), ("scenes", None, WindowOptions())],
)
def test_a_window_is_written_as_people_write_it(length: str, overlap: str | None, expected: WindowOptions) -> None:
    assert WindowOptions.parse(length, overlap) == expected


@pytest.mark.parametrize(
    ("length", "overlap"), [("30", "30"), ("5", "6"), ("0", None), ("scene", None), ("scenes", "5"), ("-3", None)]
)
def test_what_makes_no_windows_is_refused(length: str, overlap: str | None) -> None:
    with pytest.raises(UsageError):
        WindowOptions.parse(length, overlap)


def test_what_is_no_length_is_told_the_ways_to_write_one() -> None:
    with pytest.raises(UsageError, match="scene") as caught:
        WindowOptions.parse("scene")
    assert caught.value.remedy == "Write a window as 30s, 1:30 or scenes."


@settings(deadline=None)
@given(start=st.floats(0, 1000), duration=st.floats(0.1, 500), length=st.floats(1, 60), share=st.floats(0, 0.8))
def test_windows_cover_the_range_in_order(start: float, duration: float, length: float, share: float) -> None:
    options = WindowOptions(length, length * share)
    windows = options.windows_within(start, start + duration)
    assert windows[0].start_seconds == pytest.approx(start, abs=0.001)
    assert windows[-1].end_seconds == pytest.approx(start + duration, abs=0.002)
    for before, after in pairwise(windows):
        assert before.start_seconds < after.start_seconds <= before.end_seconds < after.end_seconds + 0.001
        if share == 0:
            assert before.end_seconds == after.start_seconds
    longest = length + (length - options.overlap_seconds) / 2
    assert all(window.end_seconds - window.start_seconds <= longest + 0.005 for window in windows)


def test_a_short_rest_joins_the_window_before() -> None:
    assert WindowOptions(30).windows_within(0, 74) == (Window(0, 30), Window(30, 74))
    assert WindowOptions(30).windows_within(0, 76) == (Window(0, 30), Window(30, 60), Window(60, 76))
    assert WindowOptions(30).windows_within(0, 5) == (Window(0, 5),)


def test_windows_keep_within_the_range(video: WriteVideo) -> None:
    with reader_here(video("windows.mp4", WHOLE)) as reader:
        sampling = SamplingOptions(start_seconds=2, end_seconds=7)
        assert plan_windows(reader, WindowOptions(2.5), sampling) == (Window(2, 4.5), Window(4.5, 7))
        assert plan_windows(reader, WindowOptions(5), SamplingOptions())[-1].end_seconds == 12
        with pytest.raises(RangeOutsideVideoError):
            plan_windows(reader, WindowOptions(5), SamplingOptions(start_seconds=20))
        times = SamplingOptions(strategy=SamplingStrategy.TIMESTAMPS, timestamps_seconds=(1.0,))
        with pytest.raises(UsageError):
            plan_windows(reader, WindowOptions(5), times)


def test_a_scene_begins_with_its_first_frame_and_ends_before_the_next(
    video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its end at the cut, every window would have shown the first frame of the next scene, as its last."""
    monkeypatch.setattr("sfvqa.video.windows.find_cuts_in", lambda *_: (100, 201))
    with reader_here(video("ntsc.mp4", Recipe([round(n * 1000 / 23.976) for n in range(300)]))) as reader:
        windows = plan_windows(reader, WindowOptions(), SamplingOptions())
        frames = [choose_unread(reader, window.of(SamplingOptions(num_frames=500))).indices for window in windows]
    assert [(indices[0], indices[-1]) for indices in frames] == [(0, 99), (100, 200), (201, 299)]


# --- reading them ---


def read_or_why_not(reader: VideoReader, sampling: SamplingOptions) -> Clip | str:
    steps = read_clip_progressively(reader, sampling, fit=FIT)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            clip: Clip = end.value
            return clip
        except UnreadableVideoError as error:
            return error.message


def windows_of(path: Path, options: WindowOptions, sampling: SamplingOptions) -> Iterator[tuple[Window, Clip | str]]:
    """Each window, read in one pass."""
    with reader_here(path, ReaderName.PYAV) as opened:
        windows = plan_windows(opened, options, sampling)
        parts = [choose_unread(opened, window.of(sampling)).indices for window in windows]
        with WindowsReader(opened, parts, FIT) as reader:
            for window in windows:
                yield window, read_or_why_not(reader, window.of(sampling))


def assert_as_alone(path: Path, options: WindowOptions, sampling: SamplingOptions) -> list[Clip | str]:
    """Every window has the frames, times, warnings and missing frames that reading it alone gives."""
    found = []
    for window, clip in windows_of(path, options, sampling):
        found.append(clip)
        with reader_here(path, ReaderName.PYAV) as reader:
            alone = read_or_why_not(reader, window.of(sampling))
        if isinstance(clip, str) or isinstance(alone, str):
            assert clip == alone
            continue
        assert (clip.indices, clip.timestamps_seconds) == (alone.indices, alone.timestamps_seconds)
        assert (clip.warnings, clip.missing) == (alone.warnings, alone.missing)
        assert np.array_equal(clip.frames, alone.frames)
    return found


@pytest.mark.parametrize(
    "options", [WindowOptions(2), WindowOptions(3, 1), WindowOptions(4, 3), WindowOptions(0.7), WindowOptions(100)]
)
def test_in_one_pass_windows_are_what_they_are_alone(video: WriteVideo, options: WindowOptions) -> None:
    assert_as_alone(video("windows.mp4", WHOLE), options, SamplingOptions(num_frames=8))


@pytest.mark.parametrize("options", [WindowOptions(1), WindowOptions(2, 0.5), WindowOptions(0.25)])
def test_windows_of_a_variable_rate_are_right_to_a_frame(video: WriteVideo, options: WindowOptions) -> None:
    """A window in which no frame begins shows the one that is on screen."""
    path = video("variable.mkv", Recipe(VARIABLE, group=5))
    clips = assert_as_alone(path, options, SamplingOptions(num_frames=100))
    for clip in clips:
        assert isinstance(clip, Clip)
        assert [number_in(frame) for frame in clip.frames] == list(clip.indices)
        assert [round(1000 * seconds) for seconds in clip.timestamps_seconds] == [VARIABLE[n] for n in clip.indices]


@pytest.mark.parametrize(("first", "count"), [(10, 4), (1, 29), (0, 4)])
@pytest.mark.parametrize("options", [WindowOptions(0.4), WindowOptions(1.2), WindowOptions(2, 1.5)])
def test_damage_costs_the_windows_that_hold_it_and_no_other(
    video: WriteVideo, tmp_path: Path, options: WindowOptions, first: int, count: int
) -> None:
    path = wipe_group(video("windows.mp4", WHOLE), tmp_path / "wiped.mp4", 2, first=first, count=count)
    for num_frames in (4, 100):
        clips = assert_as_alone(path, options, SamplingOptions(num_frames=num_frames))
        damaged = [clip for clip in clips if isinstance(clip, str) or clip.missing]
        assert 0 < len(damaged) < len(clips)
    if count == 29 and options == WindowOptions(0.4):
        assert any(isinstance(clip, str) for clip in clips), "a window of which nothing is left is an error"


@pytest.mark.parametrize(("options", "num_frames"), [(WindowOptions(1.5), 32), (WindowOptions(2, 1), 64)])
def test_the_file_is_decoded_once(
    video: WriteVideo, monkeypatch: pytest.MonkeyPatch, options: WindowOptions, num_frames: int
) -> None:
    """A window at a time, each group was decoded once for every window that shares it."""
    num_sent, decode = 0, Handle.decode

    def counting(self: Handle, packet: "av.Packet[av.VideoStream] | None") -> list[av.VideoFrame]:
        nonlocal num_sent
        num_sent += packet is not None
        return decode(self, packet)

    monkeypatch.setattr(Handle, "decode", counting)
    path = video("windows.mp4", WHOLE)
    assert len(list(windows_of(path, options, SamplingOptions(num_frames=num_frames)))) > 5
    assert num_sent <= 1.15 * len(WHOLE.times)


class CountingReader(VideoReader):
    """1,000 frames, a tenth of a second each; `most_held` is how many pictures of it were alive at a time."""

    name = ReaderName.PYAV

    def __init__(self) -> None:
        times = tuple(number / 10 for number in range(1000))
        super().__init__(VideoInfo(Path("made"), 1000, 10, 100, 8, 8, "made", 0), times, tuple(range(0, 1000, 10)), ())
        self.num_held = self.most_held = 0
        self.num_allowed = 0
        self.asked: list[int] = []

    def allow_time(self) -> None:
        self.num_allowed += 1

    def pictures(self, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:  # noqa: ARG002
        self.asked += indices
        for index in indices:
            picture = np.full((8, 8, 3), index % 251, np.uint8)
            self.num_held += 1
            self.most_held = max(self.most_held, self.num_held)
            weakref.finalize(picture, self._let_go)
            yield index, picture
            del picture

    def _let_go(self) -> None:
        self.num_held -= 1


@pytest.mark.parametrize(("overlap", "most"), [(0, 4), (5, 56)])
def test_no_more_is_held_than_what_overlaps(overlap: int, most: int) -> None:
    video, sampling = CountingReader(), SamplingOptions(num_frames=1000)
    windows = plan_windows(video, WindowOptions(10, overlap), sampling)
    parts = [choose_unread(video, window.of(sampling)).indices for window in windows]
    with WindowsReader(video, parts, FIT) as reader:
        for part in parts:
            assert [frame.index for frame in reader.read(part, FIT)] == list(part)
    assert video.asked == list(range(1000))
    assert video.most_held <= most
    assert video.num_allowed == len(windows), "the time limit of reading is that of a window"


def test_a_window_that_is_left_out_or_read_again_does_no_harm() -> None:
    video, sampling = CountingReader(), SamplingOptions(num_frames=30)
    windows = plan_windows(video, WindowOptions(10, 2), sampling)
    parts = [choose_unread(video, window.of(sampling)).indices for window in windows]
    with WindowsReader(video, parts, FIT) as reader:
        for number in (0, 1, 4, 4, 2, 5, 6, 6):
            assert [frame.index for frame in reader.read(parts[number], FIT)] == list(parts[number])
            assert reader.missing == ()
        half = parts[7][::2]
        assert [frame.index for frame in reader.read(half, FIT)] == list(half)
        assert [frame.index for frame in reader.read([3, 5], FitSquare(8))] == [3, 5]


def test_after_a_window_that_was_cancelled_the_next_is_whole(video: WriteVideo) -> None:
    """The process that reads is killed in the middle of a pass that was to go on."""
    sampling = SamplingOptions(num_frames=20)
    with open_video(video("windows.mp4", WHOLE)) as opened:
        windows = plan_windows(opened, WindowOptions(2), sampling)
        parts = [choose_unread(opened, window.of(sampling)).indices for window in windows]
        with WindowsReader(opened, parts, FIT) as reader:
            frames = reader.read(parts[0], FIT)
            next(frames)
            reader.cancel()
            del frames
            for part in parts[1:]:
                shown = [number_in(frame.pixels) for frame in reader.read(part, FIT)]
                assert shown == list(part)
