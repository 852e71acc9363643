"""Frames that are in memory already are seen as a folder of the same pictures is, bit for bit."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sfvqa.errors import UnreadableVideoError, UsageError
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.inference.video_qa import VideoQA
from sfvqa.video import CropMode, SamplingOptions
from tests.model.families.published import FAMILIES, save_whole

NUM_FRAMES = 9
FRAMES = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 50, 90, 3), np.uint8)
TIMES = [float(second) for second in range(NUM_FRAMES)]
FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: FRAMES,
    "array that is a view": lambda: FRAMES[..., ::-1].copy()[..., ::-1],
    "array, channels first": lambda: FRAMES.transpose(0, 3, 1, 2).copy(),
    "tensor": lambda: torch.from_numpy(FRAMES),
    "tensor, channels first": lambda: torch.from_numpy(FRAMES).permute(0, 3, 1, 2),
    "images": lambda: [Image.fromarray(frame) for frame in FRAMES],
    "list of arrays": lambda: list(FRAMES),
    "list of tensors": lambda: [torch.from_numpy(frame).permute(2, 0, 1) for frame in FRAMES],
}


def write_pictures(folder: Path, pictures: Sequence[Image.Image]) -> Path:
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("frames") / "png", [Image.fromarray(frame) for frame in FRAMES])


def assert_same(found: EncodedVideo, expected: EncodedVideo) -> None:
    assert torch.equal(found.visual_tokens.slow, expected.visual_tokens.slow)
    assert torch.equal(found.visual_tokens.fast, expected.visual_tokens.fast)
    assert (found.timestamps_seconds, found.indices) == (expected.timestamps_seconds, expected.indices)
    assert found.video.duration_seconds == expected.video.duration_seconds


@pytest.mark.parametrize(
    ("form", "crop"),
    [*((form, CropMode.CENTER) for form in FORMS), ("images", CropMode.PAD), ("array", CropMode.SQUASH)],
)
def test_every_form_is_seen_as_the_pictures_in_a_folder_are(
    qa: VideoQA, folder: Path, form: str, crop: CropMode
) -> None:
    from_folder = qa.encode(folder, SamplingOptions(NUM_FRAMES), crop=crop)
    in_memory = qa.encode_frames(FORMS[form](), TIMES, crop=crop)
    assert_same(in_memory, from_folder)
    question = "What moves?"
    assert qa.ask(in_memory, question).text == qa.ask(from_folder, question).text != ""


def test_images_of_other_sizes_turned_or_transparent_are_seen_as_in_a_folder(qa: VideoQA, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 40, 4), np.uint8)
    turned = Image.fromarray(noise[..., :3])
    turned.getexif()[0x0112] = 6
    pictures = [turned, Image.fromarray(noise), Image.fromarray(noise[:30, :, 0]), Image.fromarray(noise[..., :3])]
    folder = tmp_path / "png"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.png", exif=picture.getexif())
    opened = [Image.open(path) for path in sorted(folder.iterdir())]
    for given in (pictures, opened):
        assert_same(qa.encode_frames(given, [0, 1, 2, 3]), qa.encode(folder, SamplingOptions(4)))


def test_frames_are_chosen_by_sampling_and_keep_their_times(qa: VideoQA) -> None:
    times = np.linspace(100.0, 140.0, NUM_FRAMES)
    every = qa.encode_frames(FRAMES, times)
    assert every.timestamps_seconds == tuple(times)
    chosen = qa.encode_frames(FRAMES, times, SamplingOptions(3, start_seconds=110.0, end_seconds=130.0))
    assert (chosen.indices, chosen.timestamps_seconds) == ((2, 4, 6), (110.0, 120.0, 130.0))
    assert torch.equal(chosen.visual_tokens.slow, qa.encode_frames(FRAMES[2:7:2], [0, 1, 2]).visual_tokens.slow)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_get_the_same_prompt_too(family: str, folder: Path, tmp_path: Path) -> None:
    save_whole(family, tmp_path / family)
    qa = VideoQA.load(tmp_path / family, device="cpu")
    from_folder, in_memory = qa.encode(folder, SamplingOptions(NUM_FRAMES)), qa.encode_frames(FRAMES, TIMES)
    assert_same(in_memory, from_folder)
    one, other = qa.ask(in_memory, "What moves?"), qa.ask(from_folder, "What moves?")
    assert (one.text, one.tokens) == (other.text, other.tokens)


def test_one_frame_is_a_picture(qa: VideoQA, tmp_path: Path) -> None:
    Image.fromarray(FRAMES[0]).save(tmp_path / "still.png")
    assert_same(qa.encode_frames(FRAMES[:1], [0]), qa.encode(tmp_path / "still.png"))


def test_nothing_is_looked_for_or_kept_in_the_video_cache(qa: VideoQA, tmp_path: Path) -> None:
    cache = VideoCache(tmp_path / "cache")
    cached = VideoQA(qa.checkpoint, video_cache=cache)
    for _ in range(2):
        encoded = cached.encode_frames(FRAMES, TIMES)
        assert not encoded.is_from_cache
        assert not any("kept" in warning for warning in encoded.warnings)
    answer = cached.ask(encoded, "What moves?")
    assert (answer.video, answer.settings.reader) == ("frames in memory", "memory")


@pytest.mark.parametrize(
    ("frames", "times", "message"),
    [
        (FRAMES.astype(np.float32), TIMES, "float32, not uint8"),
        (torch.from_numpy(FRAMES).bfloat16(), TIMES, "bfloat16, not uint8"),
        (FRAMES[0], [0], "no picture"),
        (FRAMES[..., 0], TIMES, "no picture"),
        (FRAMES[:, :0], TIMES, "no picture"),
        (np.zeros((2, 8, 8, 4), np.uint8), [0, 1], "no axis of 3"),
        (np.zeros((2, 3, 8, 3), np.uint8), [0, 1], "two axes of 3"),
        ([FRAMES], [0], "no picture"),
        ("clip.mp4", [0], "type str"),
        (None, [0], "NoneType"),
        ([[1, 2]], [0], "type list"),
        (FRAMES[:0], [], "no frames"),
        ([], [], "no frames"),
        (FRAMES, TIMES[:-1], "9 frames and 8 times"),
        (FRAMES[:1], [0, 1], "is 1 frame and 2 times"),
        (FRAMES[:3], [0, float("nan"), 2], "time of frame 1 is nan"),
        (FRAMES[:2], [-1, 0], "time of frame 0 is -1"),
        (FRAMES[:2], [0, float("inf")], "time of frame 1 is inf"),
        (FRAMES[:3], [0, 2, 1], "Frame 2 is shown at 1 s"),
        (FRAMES[:2], [1, 1], "not after"),
        (FRAMES[:1], ["soon"], "no numbers"),
        (FRAMES[:1], 0.0, "no numbers"),
        ([FRAMES[0], FRAMES[1].astype(int)], [0, 1], "int64, not uint8"),
    ],
)
def test_what_is_no_frames_or_times_is_refused(qa: VideoQA, frames: Any, times: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        qa.encode_frames(frames, times)


def test_an_image_that_cannot_be_read_is_named(qa: VideoQA, tmp_path: Path) -> None:
    whole = write_pictures(tmp_path / "png", [Image.fromarray(frame) for frame in FRAMES[:2]]) / "001.png"
    whole.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(UnreadableVideoError, match="frame 1"):
        qa.encode_frames([Image.fromarray(FRAMES[0]), Image.open(whole)], [0, 1])
