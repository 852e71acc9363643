"""Pictures on the page are of the frames that were looked at, or there are none and it says why."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sfvqa
from sfvqa.batch.report.cards import SeenFrames, Thumbnails, VideoCard, find_video, read_thumbnails, spread
from sfvqa.video import FitWithin, ReadOptions, open_video

SHAPES = Path(sfvqa.__file__).parent / "assets" / "demo" / "shapes.mp4"
SEEN = ((0, 0.0), (30, 1.25), (60, 2.5), (90, 3.75))


@pytest.mark.parametrize(
    ("num", "places"),
    [(1, [2]), (2, [0, 3]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])],
)
def test_some_frames_spread_over_all(num: int, places: list[int]) -> None:
    assert spread(SEEN, num) == dict(SEEN[place] for place in places)


def test_of_no_frames_there_are_none() -> None:
    assert spread((), 3) == {}


def test_pictures_are_of_the_recorded_frames() -> None:
    """The right one of several that differ, up to what JPEG loses."""
    (thumbnails,) = read_thumbnails([(SHAPES, {SEEN: set(spread(SEEN, 4))}, "pyav")])
    assert (list(thumbnails.pictures), thumbnails.failure) == ([0, 30, 60, 90], None)
    with open_video(SHAPES, ReadOptions(isolated=False)) as video:
        frames = {frame.index: frame.pixels for frame in video.read([0, 30, 60, 90], FitWithin(240, 180))}
    for index, jpeg in thumbnails.pictures.items():
        picture = np.asarray(Image.open(io.BytesIO(jpeg)), np.float32)
        distances = {other: float(np.abs(picture - pixels).mean()) for other, pixels in frames.items()}
        assert picture.shape[0] <= 180
        assert picture.shape[1] <= 240
        assert min(distances, key=distances.__getitem__) == index


def test_videos_come_back_in_their_order_each_with_its_own_failure(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 100)
    wanted: dict[SeenFrames, set[int]] = {((0, 0.0),): {0}}
    videos: list[tuple[Path | None, dict[SeenFrames, set[int]]]] = [
        (SHAPES, wanted),
        (None, wanted),
        (bad, wanted),
        (SHAPES, {}),
    ]
    found = list(read_thumbnails((path, frames, None) for path, frames in videos))
    assert list(found[0].pictures) == [0]
    assert [len(thumbnails.pictures) for thumbnails in found] == [1, 0, 0, 0]
    assert found[1].failure == "The video is no longer here."
    assert str(bad) in (found[2].failure or "")
    assert found[3] == Thumbnails({})


def test_of_a_video_that_has_changed_what_was_seen_since_is_shown() -> None:
    """Even where some of the frames seen before are still where they were: they need not show the same."""
    before, longer, since = ((0, 0.0), (30, 0.5)), ((0, 0.0), (9999, 400.0)), ((0, 0.0), (60, 2.5))
    wanted: dict[SeenFrames, set[int]] = {before: {0}, longer: {0}, since: {0, 60}}
    (thumbnails,) = read_thumbnails([(SHAPES, wanted, None)])
    assert (list(thumbnails.pictures), thumbnails.failure) == ([0, 60], None)
    assert thumbnails.of(since) == thumbnails.pictures
    assert thumbnails.of(before) == thumbnails.of(longer) == {}
    assert thumbnails.changed == {
        before: "frame 30 was seen at 0:00.5, and is at 0:01.25 now.",
        longer: "it has 120 frames now, and frame 9,999 was seen.",
    }


def test_a_video_is_where_it_was_or_by_its_name_in_a_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        shutil.copy(SHAPES, folder / "sub" / "a.mp4")
    card, records = VideoCard("sub/a.mp4", first / "sub" / "a.mp4"), second / "out.jsonl"
    assert find_video(card, records, None) == first / "sub" / "a.mp4"
    assert find_video(card, records, second) == second / "sub" / "a.mp4"
    assert find_video(VideoCard("sub/a.mp4", None), records, None) == second / "sub" / "a.mp4"
    assert find_video(card, records, tmp_path) == first / "sub" / "a.mp4"


@pytest.mark.parametrize("name", ["absent.mp4", "a\0b", "x" * 5000, "\udcff"])
def test_a_name_that_no_file_has_is_nowhere(name: str, tmp_path: Path) -> None:
    assert find_video(VideoCard(name, None), tmp_path / "out.jsonl", tmp_path) is None
