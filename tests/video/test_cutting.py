"""A clip that is copied shows the very frames of its part, from a key frame on, and has their sound."""

from pathlib import Path

import av
import numpy as np
import pytest

from sfvqa.errors import UnreadableVideoError
from sfvqa.video.cutting import copy_part
from sfvqa.video.readers import ReadOptions, open_here
from tests.video.videos import Recipe, constant_rate, number_in, write_video

GROUP, FPS = 25, 25


@pytest.fixture(scope="module", params=["mp4", "mkv", "avi"])
def long_video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight seconds with sound; x264 writes a key frame a second, mpeg4 also where much changes."""
    recipe = Recipe(constant_rate(200, FPS), codec="mpeg4", group=GROUP, with_sound=True)
    if request.param != "avi":
        recipe = Recipe(constant_rate(200, FPS), group=GROUP, with_sound=True, options={"keyint_min": str(GROUP)})
    return write_video(tmp_path_factory.mktemp("long") / f"long.{request.param}", recipe)


def numbers_in(path: Path) -> list[int | None]:
    with av.open(str(path)) as container:
        return [number_in(frame.to_ndarray(format="rgb24").astype(np.uint8)) for frame in container.decode(video=0)]


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


def test_what_no_file_of_that_ending_can_hold_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mkv", Recipe(constant_rate(30, FPS)))
    with pytest.raises(UnreadableVideoError, match="No clip can be copied"):
        copy_part(video, tmp_path / "clip.webm", 0.0, 1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
