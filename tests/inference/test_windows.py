"""Windows of a video: each is encoded as its part alone is, kept under the same key, and fails by itself."""

import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.errors import UnreadableVideoError, VideoError
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import ReadOptions, SamplingOptions, SamplingStrategy, Window, WindowOptions
from sfvqa.video.clip import Pixels
from sfvqa.video.fitting import Fit
from sfvqa.video.readers.pyav import PyAVReader
from tests.inference.test_cached_encoding import same

HERE = ReadOptions(isolated=False)
SAMPLING = SamplingOptions(num_frames=4)


@pytest.fixture
def video(video_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(video_path, tmp_path / "clip.mp4"))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The frames of each pass over a file."""
    passes: list[list[int]] = []
    pictures = PyAVReader.pictures

    def counting(self: PyAVReader, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        passes.append(indices)
        return pictures(self, indices, fit)

    monkeypatch.setattr(PyAVReader, "pictures", counting)
    return passes


def seen(
    qa: VideoQA, video: Path, options: WindowOptions, sampling: SamplingOptions = SAMPLING
) -> dict[Window, EncodedVideo]:
    found: dict[Window, EncodedVideo] = {}
    for window, encoded in qa.windows(video, options, sampling, reading=HERE):
        assert isinstance(encoded, EncodedVideo)
        assert encoded.window == window
        found[window] = encoded
    return found


@pytest.mark.parametrize("options", [WindowOptions(0.5), WindowOptions(0.9, 0.4), WindowOptions(9)])
@pytest.mark.parametrize("strategy", [SamplingStrategy.UNIFORM, SamplingStrategy.SCENE])
def test_each_window_is_what_its_part_alone_is(
    qa: VideoQA, video: Path, options: WindowOptions, strategy: SamplingStrategy
) -> None:
    sampling = SamplingOptions(num_frames=4, strategy=strategy)
    for window, encoded in seen(qa, video, options, sampling).items():
        alone = qa.encode(video, window.of(sampling), reading=HERE)
        assert same(encoded, replace(alone, window=window))


def test_the_frames_of_all_windows_come_from_one_pass(qa: VideoQA, video: Path, reads: list[list[int]]) -> None:
    found = seen(qa, video, WindowOptions(0.9, 0.4))
    assert len(found) > 2
    assert reads == [sorted({index for encoded in found.values() for index in encoded.indices})]


def test_windows_are_kept_as_their_ranges_are(
    qa: VideoQA, video: Path, tmp_path: Path, reads: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cache holds is not read again, wherever it lies among the windows."""
    caching, options = VideoQA(qa.checkpoint, video_cache=VideoCache(tmp_path / "cache")), WindowOptions(0.5)
    first, second, *others = caching.windows(video, options, SAMPLING, reading=HERE)
    (tmp_path / "cache").rename(tmp_path / "gone")
    caching.encode(video, second[0].of(SAMPLING), reading=HERE)
    reads.clear()
    again = seen(caching, video, options)
    assert [encoded.is_from_cache for encoded in again.values()] == [False, True] + [False] * len(others)
    assert len(reads) == 1
    frames = again[second[0]].indices
    assert not set(reads[0]) & set(frames[1:-1]), "its own frames; the ends belong to the neighbours too"
    reads.clear()
    monkeypatch.setattr(qa.checkpoint.model, "encode_frames", None)
    assert all(encoded.is_from_cache for encoded in seen(caching, video, options).values())
    assert caching.encode(video, first[0].of(SAMPLING), reading=HERE).is_from_cache
    assert reads == []


def test_a_window_that_cannot_be_read_is_given_with_its_error(
    qa: VideoQA, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others go on."""
    pictures = PyAVReader.pictures

    def damaged(self: PyAVReader, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index, picture in pictures(self, indices, fit):
            yield index, "it is damaged" if 5 <= index <= 10 else picture

    monkeypatch.setattr(PyAVReader, "pictures", damaged)
    found: list[EncodedVideo | VideoError] = [
        encoded for _, encoded in qa.windows(video, WindowOptions(0.5), SAMPLING, reading=HERE)
    ]
    assert [type(encoded) for encoded in found] == [EncodedVideo, UnreadableVideoError, EncodedVideo, EncodedVideo]


def test_where_reading_breaks_off_the_next_window_begins_anew(
    qa: VideoQA, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, breaks = PyAVReader.pictures, iter([True])

    def breaking(self: PyAVReader, indices: list[int], fit: Fit) -> Generator[tuple[int, Pixels | str]]:
        for index, picture in pictures(self, indices, fit):
            if index > 6 and next(breaks, False):
                raise UnreadableVideoError("The process is gone.", "Try again.")
            yield index, picture

    monkeypatch.setattr(PyAVReader, "pictures", breaking)
    found = [encoded for _, encoded in qa.windows(video, WindowOptions(0.5), SAMPLING, reading=HERE)]
    assert [isinstance(encoded, EncodedVideo) for encoded in found] == [True, False, True, True]


def test_an_answer_says_which_window_it_is_about(qa: VideoQA, video: Path) -> None:
    window, encoded = next(iter(seen(qa, video, WindowOptions(0.5)).items()))
    options = GenerationOptions(max_new_tokens=2)
    answer = qa.ask(encoded, "Which way?", options)
    assert answer.window == window
    assert answer.to_dict()["window"] == {"start_seconds": 0.0, "end_seconds": 0.5}
    assert qa.ask(qa.encode(video, SAMPLING, reading=HERE), "Which way?", options).to_dict()["window"] is None
