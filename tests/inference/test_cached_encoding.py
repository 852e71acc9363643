"""A video that was seen before is not read or encoded again, and nothing old is ever taken for what has changed."""

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from sfvqa.errors import UnreadableVideoError, VideoNotFoundError
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import CropMode, ReaderName, ReadOptions, SamplingOptions, SamplingStrategy, open_video
from sfvqa.video.readers.local_file import FileState
from tests.inference.conftest import write_video
from tests.inference.fake_reader import FakeReader

SHORT = GenerationOptions(max_new_tokens=10)


@pytest.fixture
def video(video_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(video_path, tmp_path / "clip.mp4"))


@pytest.fixture
def cache(tmp_path: Path) -> VideoCache:
    return VideoCache(tmp_path / "cache")


@pytest.fixture
def caching(qa: VideoQA, cache: VideoCache) -> VideoQA:
    return VideoQA(qa.checkpoint, video_cache=cache)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are opened to be read."""
    opened: list[str] = []

    def counting(path: Path, options: ReadOptions | None = None) -> object:
        opened.append(Path(path).name)
        return open_video(path, options)

    monkeypatch.setattr("sfvqa.inference.video_cache.encode.open_video", counting)
    return opened


def same(one: EncodedVideo, other: EncodedVideo) -> bool:
    """Whether two encodings are alike in all but what they took."""
    fields = [field.name for field in dataclasses.fields(EncodedVideo) if not field.name.endswith("_seconds")]
    fields = [name for name in fields if name not in ("visual_tokens", "is_from_cache")]
    return (
        torch.equal(one.visual_tokens.slow, other.visual_tokens.slow)
        and torch.equal(one.visual_tokens.fast, other.visual_tokens.fast)
        and all(getattr(one, name) == getattr(other, name) for name in fields)
    )


def test_the_second_time_nothing_is_read_and_the_answer_is_the_same(
    qa: VideoQA, caching: VideoQA, video: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = qa.encode(video)
    first = caching.encode(video)
    monkeypatch.setattr(qa.checkpoint.model, "encode_frames", None)  # the vision tower cannot run any more
    second = caching.encode(video)
    assert reads == ["clip.mp4"]
    assert same(first, without)
    assert same(second, without)
    answers = [caching.ask(encoded, "Which way?", SHORT) for encoded in (without, first, second)]
    assert len({answer.text for answer in answers}) == 1
    assert [answer.from_video_cache for answer in answers] == [False, False, True]
    assert second.read_seconds < first.read_seconds


def test_another_process_of_the_same_model_finds_it(
    caching: VideoQA, checkpoint_folder: Path, cache: VideoCache, video: Path, reads: list[str]
) -> None:
    first = caching.encode(video)
    again = VideoQA.load(checkpoint_folder, device="cpu", video_cache=VideoCache(cache.folder))
    assert same(again.encode(video), first)
    assert reads == ["clip.mp4"]


def test_a_video_is_known_by_its_content_not_its_name(caching: VideoQA, video: Path, reads: list[str]) -> None:
    first = caching.encode(video)
    moved = video.rename(video.with_name("moved.mp4"))
    second = caching.encode(moved)
    assert reads == ["clip.mp4"]
    assert second.video.path == moved
    assert first.video.path == video


def other_video(video: Path) -> None:
    write_video(video, num_frames=20, colour=(160, 80, 40))


def same_size_and_time(video: Path) -> None:
    """One byte flipped in place, and the time of the last change put back."""
    status = video.stat()
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 1
    video.write_bytes(data)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("in_one_process", [False, True])
@pytest.mark.parametrize("change", [other_video, same_size_and_time])
def test_a_changed_video_never_gets_what_was_kept(
    qa: VideoQA,
    cache: VideoCache,
    video: Path,
    reads: list[str],
    change: Callable[[Path], None],
    in_one_process: bool,
) -> None:
    first = VideoQA(qa.checkpoint, video_cache=cache).encode(video)
    change(video)
    second = VideoQA(qa.checkpoint, video_cache=cache if in_one_process else VideoCache(cache.folder)).encode(video)
    assert len(reads) == 2
    assert same(second, qa.encode(video))
    assert not same(first, second)


@pytest.mark.parametrize(
    "settings",
    [
        {"sampling": SamplingOptions(num_frames=7)},
        {"sampling": SamplingOptions(num_frames=8, strategy=SamplingStrategy.REFERENCE_DEMO)},
        {"sampling": SamplingOptions(num_frames=8, end_seconds=1.0)},
        {"crop": CropMode.SQUASH},
        {"reading": ReadOptions(ReaderName.OPENCV)},
    ],
)
def test_another_setting_never_gets_what_was_kept(
    qa: VideoQA, caching: VideoQA, video: Path, reads: list[str], settings: dict[str, object]
) -> None:
    caching.encode(video)
    second = caching.encode(video, **settings)  # type: ignore[arg-type]
    assert len(reads) == 2
    assert same(second, qa.encode(video, **settings))  # type: ignore[arg-type]


def test_other_threads_and_times_to_read_change_nothing(caching: VideoQA, video: Path, reads: list[str]) -> None:
    caching.encode(video)
    caching.encode(video, reading=ReadOptions(num_threads=1, timeout_seconds=60.0))
    assert len(reads) == 1


def test_another_model_or_dtype_never_gets_what_was_kept(
    caching: VideoQA, checkpoint_folder: Path, cache: VideoCache, video: Path, reads: list[str], tmp_path: Path
) -> None:
    """A fine-tune in one weight, of the same names and sizes; and the same weights computed in another dtype."""
    first = caching.encode(video)
    tuned = Path(shutil.copytree(checkpoint_folder, tmp_path / "tuned"))
    tensors = load_file(tuned / "model.safetensors")
    tensors["projector.fc1.bias"][0] += 1
    save_file(tensors, tuned / "model.safetensors", metadata={"format": "pt"})
    second = VideoQA.load(tuned, device="cpu", video_cache=cache).encode(video)
    assert not same(first, second)
    half = VideoQA.load(checkpoint_folder, device="cpu", dtype="bfloat16", video_cache=cache).encode(video)
    assert half.visual_tokens.slow.dtype is torch.bfloat16
    assert len(reads) == 3


def test_a_picture_that_changes_in_its_folder_is_noticed(caching: VideoQA, reads: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number * 80, 0, 0)).save(folder / f"{number}.png")
    first = caching.encode(folder)
    assert same(first, caching.encode(folder))
    assert len(reads) == 1
    Image.new("RGB", (40, 40), (0, 255, 0)).save(folder / "1.png")
    assert not same(first, caching.encode(folder))
    assert len(reads) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that is there and cannot be read, even by root")
def test_a_picture_that_cannot_be_read_costs_no_more_than_without_a_cache(
    qa: VideoQA, caching: VideoQA, cache: VideoCache, tmp_path: Path
) -> None:
    """Its folder cannot be recognised, but the others in it can be seen."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (40, 40), (number * 80, 0, 0)).save(folder / f"{number}.png")
    (folder / "3.png").symlink_to("/proc/self/mem")
    expected = qa.encode(folder)
    encoded = caching.encode(folder)
    assert torch.equal(encoded.visual_tokens.slow, expected.visual_tokens.slow)
    assert encoded.warnings[:-1] == expected.warnings
    assert "not kept" in encoded.warnings[-1]
    assert cache.entries() == []


def test_what_was_to_be_said_of_the_video_is_said_again(caching: VideoQA, qa: VideoQA, video: Path) -> None:
    """A file that is cut off, and other frames than in training."""
    video.write_bytes(video.read_bytes()[:-40])
    sampling = SamplingOptions(num_frames=5)
    expected = qa.encode(video, sampling).warnings
    assert expected
    assert caching.encode(video, sampling).warnings == caching.encode(video, sampling).warnings == expected


def test_a_damaged_entry_is_made_anew_and_that_is_said(
    caching: VideoQA, cache: VideoCache, video: Path, reads: list[str]
) -> None:
    first = caching.encode(video)
    (entry,) = cache.entries()
    data = bytearray(entry.path.read_bytes())
    data[-1] ^= 1
    entry.path.write_bytes(data)
    second = caching.encode(video)
    assert torch.equal(second.visual_tokens.slow, first.visual_tokens.slow)
    assert any("damaged" in warning for warning in second.warnings)
    assert caching.encode(video).warnings == first.warnings
    assert len(reads) == 2


def test_a_video_with_frames_missing_is_not_kept(caching: VideoQA, cache: VideoCache, video: Path) -> None:
    """It may have been the disk, for once; and a damaged file is no use to ask about often."""
    with FakeReader(8, damaged=[3]) as reader:
        reader.opened_as = FileState.of(video)
        reader.info = dataclasses.replace(reader.info, path=video)
        encoded = caching.encode(reader)
        assert len(encoded.indices) == 7
        assert cache.entries() == []
    with FakeReader(8) as reader:
        reader.opened_as = FileState.of(video)
        reader.info = dataclasses.replace(reader.info, path=video)
        assert caching.encode(reader).warnings == ()
        assert len(cache.entries()) == 1


def test_a_video_that_changes_while_it_is_read_is_not_kept(caching: VideoQA, cache: VideoCache, video: Path) -> None:
    steps = caching.encode_progressively(video)
    next(steps)
    with video.open("ab") as stream:  # as a recorder would
        stream.write(b"\0" * 100)
    for _ in steps:
        pass
    assert cache.entries() == []


def test_a_file_that_is_put_in_its_place_is_not_kept_under_its_content(
    caching: VideoQA, cache: VideoCache, video: Path, tmp_path: Path
) -> None:
    """Nor answered about: it was opened before, so the frames are the old file's, whatever the path means by now."""
    with open_video(video, ReadOptions(num_threads=1)) as opened:  # a second handle would notice
        other = write_video(tmp_path / "other.mp4", num_frames=20, colour=(160, 80, 40))
        other.replace(video)
        with pytest.raises(UnreadableVideoError, match="was changed while it was read"):
            caching.encode(opened)
    assert cache.entries() == []


def test_a_video_that_changes_before_it_is_opened_is_not_kept_under_what_it_was(
    caching: VideoQA, cache: VideoCache, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for by its content, and opened after that."""

    def changing(path: Path, options: ReadOptions | None = None) -> object:
        other_video(video)
        return open_video(path, options)

    monkeypatch.setattr("sfvqa.inference.video_cache.encode.open_video", changing)
    caching.encode(video)
    assert cache.entries() == []


def test_an_open_video_is_kept_too(caching: VideoQA, cache: VideoCache, video: Path, reads: list[str]) -> None:
    with open_video(video) as opened:
        first = caching.encode(opened)
    assert len(cache.entries()) == 1
    assert same(caching.encode(video), first)
    assert reads == []


def test_encoding_that_is_left_early_keeps_nothing(caching: VideoQA, cache: VideoCache, video: Path) -> None:
    steps = caching.encode_progressively(video)
    next(steps)
    steps.close()
    assert cache.entries() == []


def test_a_cache_that_cannot_be_written_costs_a_warning_and_no_answer(qa: VideoQA, video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    caching = VideoQA(qa.checkpoint, video_cache=VideoCache(tmp_path / "file" / "cache"))
    answer = caching.ask(video, "Which way?", SHORT)
    assert answer.text == qa.ask(video, "Which way?", SHORT).text
    assert any("not kept" in warning for warning in answer.warnings)


def test_memory_that_is_too_short_to_keep_a_video_costs_a_warning_and_no_answer(
    caching: VideoQA, cache: VideoCache, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is put together in memory, beside the tokens that the answer needs."""

    def run_out(*_args: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sfvqa.inference.video_cache.store.entry_bytes", run_out)
    warnings = caching.encode(video).warnings
    assert "The encoded video is not kept: there is too little memory to write it." in warnings
    assert cache.entries() == []


def test_a_video_that_is_not_there_is_the_usual_error(caching: VideoQA, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError):
        caching.encode(tmp_path / "missing.mp4")


def test_without_a_cache_nothing_is_kept(qa: VideoQA, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfvqa.inference.video_qa.encode_through_cache", None)
    assert qa.video_cache is None
    qa.encode(video)


def test_whether_a_video_may_be_kept_is_known_by_names_alone(caching: VideoQA, cache: VideoCache, video: Path) -> None:
    assert not cache.may_hold(cache.content_of(video))
    caching.encode(video)
    assert cache.may_hold(cache.content_of(video))
    other_video(video)
    assert not cache.may_hold(cache.content_of(video))
