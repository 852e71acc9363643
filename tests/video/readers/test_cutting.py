"""A clip that is copied shows the very frames of its part, from a key frame on, and has their sound."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import ReadTimeoutError, UnreadableVideoError
from sfvqa.video.readers import ReadOptions, open_here, open_video
from sfvqa.video.readers.cutting import CLIP_FORMATS
from sfvqa.video.readers.isolated import IsolatedReader
from tests.video.videos import Recipe, constant_rate, number_in, write_video
from tests.windows import needs_pipes

GROUP, FPS = 25, 25


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi", "ts"])
def long_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds with sound; x264 writes a key frame a second, mpeg4 also where much changes."""
    recipe = Recipe(constant_rate(200, FPS), codec="mpeg4", group=GROUP, with_sound=True)
    if request.param != "avi":
        recipe = Recipe(constant_rate(200, FPS), group=GROUP, with_sound=True, options={"keyint_min": str(GROUP)})
    return write_video(tmp_path_factory.mktemp("long") / f"long.{request.param}", recipe)


def numbers_in(path: Path) -> list[int | None]:
    with av.open(str(path)) as container:
        return [number_in(frame.to_ndarray(format="rgb24").astype(np.uint8)) for frame in container.decode(video=0)]


def copy_part(path: Path, clip: Path, start_seconds: float, end_seconds: float) -> float:
    """What comes before the start in a clip of the video, which is opened for it in this process."""
    with open_here(path, ReadOptions(isolated=False)) as reader:
        return reader.copy_part(clip, CLIP_FORMATS[clip.suffix], start_seconds, end_seconds)


def frames_of(path: Path, start_seconds: float, end_seconds: float) -> tuple[list[int], float]:
    """The frames from the last key frame before the start to the end, and when that key frame is shown."""
    with open_here(path, ReadOptions(isolated=False)) as reader:
        times = reader.timestamps_seconds
        first = max(frame for frame in reader.key_frames if times[frame] <= start_seconds)
        return [frame for frame in range(first, len(times)) if times[frame] < end_seconds], times[first]


def test_a_clip_begins_at_the_key_frame_before_it_and_holds_what_it_should(long_video: Path, tmp_path: Path) -> None:
    clip = tmp_path / f"clip{long_video.suffix}"
    before = copy_part(long_video, clip, 3.4, 5.0)
    numbers, (expected, begins) = numbers_in(clip), frames_of(long_video, 3.4, 5.0)
    assert before == pytest.approx(3.4 - begins, abs=0.001)
    assert numbers[: len(expected)] == expected  # none is missing or patched up
    assert len(numbers) <= len(expected) + 3  # what those before the end are decoded from comes too
    with av.open(str(clip)) as container:
        sound = list(container.decode(audio=0))
        seconds = sum(frame.samples / frame.sample_rate for frame in sound)
    assert seconds == pytest.approx(5.0 - begins, abs=0.15)
    assert sound[0].time == pytest.approx(0.0, abs=0.1)


def test_a_clip_to_the_end_has_the_last_frame(long_video: Path, tmp_path: Path) -> None:
    clip = tmp_path / f"clip{long_video.suffix}"
    copy_part(long_video, clip, 7.5, 9.0)
    assert numbers_in(clip) == frames_of(long_video, 7.5, 9.0)[0]


def test_seconds_count_from_the_first_frame(tmp_path: Path) -> None:
    """Also where the file's clock starts elsewhere."""
    times = [5000 + time for time in constant_rate(100, FPS)]
    video = write_video(tmp_path / "late.mkv", Recipe(times, group=GROUP, options={"keyint_min": str(GROUP)}))
    copy_part(video, tmp_path / "clip.mkv", 1.0, 2.0)
    assert numbers_in(tmp_path / "clip.mkv")[:25] == list(range(25, 50))


def test_what_no_file_of_that_ending_can_hold_is_an_error(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", Recipe(constant_rate(30, FPS)))
    with pytest.raises(UnreadableVideoError, match="No clip can be copied"):
        copy_part(video, tmp_path / "clip.webm", 0.0, 1.0)


def test_the_file_is_opened_in_the_process_that_can_be_killed(
    long_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = tmp_path / f"clip{long_video.suffix}"
    with open_video(long_video, ReadOptions(timeout_seconds=60)) as reader:
        with monkeypatch.context() as here:
            here.setattr(av, "open", None)
            before = reader.copy_part(clip, CLIP_FORMATS[clip.suffix], 3.4, 5.0)
        assert before == pytest.approx(copy_part(long_video, tmp_path / f"b{long_video.suffix}", 3.4, 5.0))
    assert clip.stat().st_size > 1000


@needs_pipes
def test_copying_ends_with_the_time_that_reading_has(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", Recipe(constant_rate(30, FPS)))
    with open_video(video, ReadOptions(timeout_seconds=60)) as reader:
        assert isinstance(reader, IsolatedReader)
        os.mkfifo(tmp_path / "stuck.mkv")  # which nobody reads
        reader._process._seconds_left = 0.3
        with pytest.raises(ReadTimeoutError, match="copying a part"):
            reader.copy_part(tmp_path / "stuck.mkv", "matroska", 0.0, 1.0)


def test_what_carries_no_times_and_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    raw = write_video(tmp_path / "raw.h264", Recipe(constant_rate(30, FPS)))
    with pytest.raises(UnreadableVideoError, match="no key frame with a time"):
        copy_part(raw, tmp_path / "clip.mkv", 0.5, 1.0)
    Image.new("RGB", (32, 32)).save(tmp_path / "still.png")
    with pytest.raises(UnreadableVideoError, match="the reader “pillow”"):
        copy_part(tmp_path / "still.png", tmp_path / "clip.mkv", 0.0, 1.0)
