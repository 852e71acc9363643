"""From a path to a clip: defaults, progress, resizing, memory, and no torch."""

import subprocess
import sys
import weakref
from collections.abc import Callable, Generator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import RangeOutsideVideoError, UnreadableVideoError
from sfvqa.video import (
    Clip,
    ReadOptions,
    ReadProgress,
    ReadStage,
    SamplingOptions,
    SamplingStrategy,
    open_video,
    read_clip,
    read_clip_progressively,
)
from sfvqa.video.clip import ClipFacts, Pixels
from sfvqa.video.fitting import Fit, FitSquare, FitWithin, resize_to
from sfvqa.video.reading import read_frame_by_frame

from .conftest import WriteVideo
from .videos import Recipe, constant_rate, number_in

RECIPE = Recipe(constant_rate(80), group=20)
HERE = ReadOptions(isolated=False)


@pytest.fixture
def path(video: WriteVideo) -> Path:
    return video("reading.mp4", RECIPE)


def test_the_default_is_64_frames_of_the_size_they_are_stored_in(path: Path) -> None:
    clip = read_clip(path)
    assert clip.frames.shape == (64, 96, 144, 3)
    assert (clip.strategy, clip.reader, clip.warnings, clip.missing) == ("uniform", "pyav", (), ())
    assert clip.video.path == path


def test_fitted_frames_are_the_full_ones_through_the_references_filter(path: Path) -> None:
    options = SamplingOptions(num_frames=5)
    full = read_clip(path, options, reading=HERE)
    small = read_clip(path, options, fit=FitSquare(64), reading=HERE)
    np.testing.assert_array_equal(small.frames, [FitSquare(64)(frame) for frame in full.frames])


def test_progress_counts_every_frame_and_the_clip_comes_last(path: Path) -> None:
    steps = read_clip_progressively(path, SamplingOptions(num_frames=3), fit=FitWithin(72, 48), reading=HERE)
    seen = []
    try:
        while True:
            seen.append(next(steps))
    except StopIteration as finished:
        clip = finished.value
    assert seen == [ReadProgress(done, 3) for done in range(4)]
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices) == [0, 40, 79]


def test_frame_by_frame_none_is_kept_and_the_facts_are_the_clips(path: Path) -> None:
    options, fit = SamplingOptions(num_frames=5), FitSquare(64)
    clip = read_clip(path, options, fit=fit, reading=HERE)
    steps = read_frame_by_frame(path, options, fit=fit, reading=HERE)
    assert next(steps).pixels is None
    given: list[weakref.ref[Pixels]] = []
    for place, frame in enumerate(clip.frames):
        step = next(steps)
        assert step.progress == ReadProgress(place + 1, 5)
        assert step.pixels is not None
        np.testing.assert_array_equal(step.pixels, frame)
        given.append(weakref.ref(step.pixels))
        del step
    with pytest.raises(StopIteration) as finished:
        next(steps)
    assert [ref() for ref in given] == [None] * 5
    facts = finished.value.value
    assert isinstance(facts, ClipFacts)
    assert {**vars(facts), "frames": clip.frames} == vars(clip)


def test_giving_up_early_closes_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfvqa.video.readers.pyav import PyAVReader

    closed: list[PyAVReader] = []
    monkeypatch.setattr(PyAVReader, "close", lambda reader: closed.append(reader))
    steps = read_clip_progressively(path, reading=HERE)
    next(steps)
    steps.close()
    assert len(closed) == 1


def test_a_range_beyond_the_end_names_the_end(path: Path) -> None:
    with pytest.raises(RangeOutsideVideoError, match=r"0:03\.16"):
        read_clip(path, SamplingOptions(start_seconds=60), reading=HERE)


def test_a_picture_that_changes_its_shape_keeps_it_between_bars_and_that_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sfvqa.video.readers.pyav import PyAVReader

    def two_shapes(_: PyAVReader, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels]]:
        for index in indices:
            yield index, fit(np.full((60, 80 + 40 * (index > 0), 3), 9, np.uint8))

    monkeypatch.setattr(PyAVReader, "pictures", two_shapes)
    clip = read_clip(path, SamplingOptions(num_frames=4), reading=HERE)
    assert clip.frames.shape == (4, 60, 80, 3)
    assert clip.frames[0].all()
    for frame in clip.frames[1:]:  # 120 × 60 in 80 × 60
        assert frame[10:50].all()
        assert not frame[:10].any()
        assert not frame[50:].any()
    assert "3 frames were fitted" in clip.warnings[0]


def test_close_may_be_called_twice(path: Path) -> None:
    with open_video(path) as opened:
        opened.close()
    assert opened.info.num_frames == len(opened.timestamps_seconds), "what was learned of the file stays"


def test_no_torch_and_no_library_of_a_reader_that_is_not_used() -> None:
    heavy = ("torch", "transformers", "av", "cv2")
    code = f"import sys, sfvqa.video; print([name for name in {heavy} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes of 3, 1, 4 and 2 seconds, each with its own light on another texture that pans."""
    import av

    path = tmp_path_factory.mktemp("scenes") / "scenes.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for light, seconds in ((0, 3), (120, 1), (40, 4), (160, 2)):
            coarse = np.random.default_rng(light).integers(light, light + 95, (7, 12, 3)).astype(np.uint8)
            texture = resize_to(coarse, 200, 120)
            for place in range(10 * seconds):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(texture[10:106, place : place + 160]), "rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_scenes_are_found_in_a_real_file_and_frames_shared_out_over_them(scenes: Path) -> None:
    """x264 puts a key frame at each cut; the frames that are looked at lie within the scenes, more in longer ones."""
    options = SamplingOptions(num_frames=8, strategy=SamplingStrategy.SCENE)
    steps = read_clip_progressively(scenes, options, reading=HERE)
    stages = []
    try:
        while True:
            stages.append(next(steps).stage)
    except StopIteration as finished:
        clip = finished.value
    assert list(dict.fromkeys(stages)) == [ReadStage.SEARCH, ReadStage.READ]
    counts = [sum(start <= index < stop for index in clip.indices) for start, stop in pairwise([0, 30, 40, 80, 100])]
    assert counts == [2, 1, 3, 2]
    assert all("cut" not in warning for warning in clip.warnings)


def test_more_scenes_than_frames_are_said(scenes: Path) -> None:
    clip = read_clip(scenes, SamplingOptions(num_frames=2, strategy=SamplingStrategy.SCENE), reading=HERE)
    assert clip.indices == (15, 60), "the middles of the two longest"
    assert any("2" in warning and "scenes" in warning for warning in clip.warnings)


def read_while(path: Path, happens: Callable[[], object]) -> Clip:
    """Read 8 frames; once the first is there, something happens to the file."""
    with open_video(path, HERE) as opened:
        steps = read_clip_progressively(opened, SamplingOptions(num_frames=8))
        next(steps)
        next(steps)
        happens()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                clip: Clip = end.value
                return clip


def test_a_file_that_is_written_over_while_it_is_read_is_an_error(video: WriteVideo, tmp_path: Path) -> None:
    """Its first frames are of one video and its last of another, which nothing told."""
    path = tmp_path / "over.mp4"
    path.write_bytes(video("over.mp4", Recipe(constant_rate(40))).read_bytes())
    with pytest.raises(UnreadableVideoError, match=r"“.*over\.mp4” was changed while it was read"):
        read_while(path, lambda: path.write_bytes(path.read_bytes()))


def test_a_file_that_grows_while_it_is_read_is_a_warning(video: WriteVideo, tmp_path: Path) -> None:
    path = tmp_path / "grows.mp4"
    path.write_bytes(video("grows.mp4", Recipe(constant_rate(40))).read_bytes())
    clip = read_while(path, lambda: path.open("ab").write(b"\0" * 100))
    assert clip.warnings == (f"“{path}” grew while it was read: what was added is not looked at.",)


def test_a_picture_of_a_folder_that_is_written_over_is_an_error(tmp_path: Path) -> None:
    """Of which the folder itself tells nothing; other files in it are none of the video's."""
    for number in range(8):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number}.png")
    assert len(read_while(tmp_path, lambda: (tmp_path / "notes.txt").write_text("seen")).indices) == 8
    with pytest.raises(UnreadableVideoError, match="was changed while it was read"):
        read_while(tmp_path, lambda: (tmp_path / "7.png").write_bytes((tmp_path / "7.png").read_bytes()))
