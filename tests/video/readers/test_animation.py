"""Animated GIF, APNG and WebP: every frame by the book and at its time; what is cut off is said and left out."""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import Clip, ReaderName, SamplingOptions

from ..here import read_here, reader_here
from ..videos import number_in, numbered_picture
from .animations import Patch, apng_bytes, composed, gif_bytes, random_patches

EVERY_FRAME = SamplingOptions(num_frames=1000)


def starts(patches: list[Patch]) -> list[float]:
    """When each frame begins, in seconds; 0 hundredths count as 10."""
    return list(accumulate((patch.hundredths or 10) / 100 for patch in patches[:-1]))


def write(path: Path, patches: list[Patch], seed: int) -> Path:
    path.write_bytes(gif_bytes(patches, seed) if path.suffix == ".gif" else apng_bytes(patches))
    return path


def expected(path: Path, patches: list[Patch]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]:
    return composed(patches, always_blend=path.suffix == ".gif")


def assert_true(clip: Clip, frames: list[np.ndarray[tuple[int, ...], np.dtype[np.float64]]]) -> None:
    for index, frame in zip(clip.indices, clip.frames, strict=True):
        assert np.abs(frame - frames[index]).max() < 4, f"frame {index} is wrong"


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_every_frame_is_composed_right_and_at_its_time(tmp_path: Path, name: str, seed: int) -> None:
    patches = random_patches(seed, half_transparent=name == "a.png" and seed % 2 == 1)
    path = write(tmp_path / name, patches, seed)
    clip = read_here(path, EVERY_FRAME)
    assert clip.indices == tuple(range(len(patches)))
    assert_true(clip, expected(path, patches))
    assert clip.timestamps_seconds == pytest.approx([0.0, *starts(patches)], abs=1e-4)
    length = sum((patch.hundredths or 10) / 100 for patch in patches)
    assert clip.video.duration_seconds == pytest.approx(length, abs=1e-4)
    assert clip.video.fps == pytest.approx(5 / clip.timestamps_seconds[-1])
    assert (clip.video.width, clip.video.height, clip.video.codec) == (24, 16, "gif" if name == "a.gif" else "apng")
    assert (clip.reader, clip.warnings) == ("pyav", ())


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_single_frames_are_the_same_as_when_all_are_read(tmp_path: Path, name: str) -> None:
    patches = random_patches(3)
    path = write(tmp_path / name, patches, 3)
    with reader_here(path) as reader:
        for index in (5, 2, 0):  # back in time
            (frame,) = reader.read([index])
            assert np.abs(frame.pixels - expected(path, patches)[index]).max() < 4


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_wherever_it_is_cut_there_is_a_warning_and_no_wrong_frame(tmp_path: Path, name: str) -> None:
    """FFmpeg gives the half frame of a cut GIF as if it were whole."""
    patches = random_patches(4)
    whole = write(tmp_path / name, patches, 4).read_bytes()
    path = tmp_path / f"cut-{name}"
    counts = []
    for length in range(20, len(whole), 11):
        path.write_bytes(whole[:length])
        try:
            clip = read_here(path, EVERY_FRAME)
        except UnreadableVideoError:
            counts.append(0)
            continue
        assert any("ends early" in warning for warning in clip.warnings)
        assert_true(clip, expected(path, patches))
        counts.append(clip.video.num_frames)
    assert counts == sorted(counts)
    assert max(counts) >= 5
    assert 0 in counts


def test_no_flipped_byte_gives_a_wrong_frame_of_an_apng(tmp_path: Path) -> None:
    patches = random_patches(5)
    path = write(tmp_path / "a.png", patches, 5)
    whole, frames = path.read_bytes(), expected(path, patches)
    for place in range(8, len(whole), 9):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            clip = read_here(path, EVERY_FRAME)
        except UnreadableVideoError:
            continue
        assert_true(clip, frames)
        assert clip.timestamps_seconds == pytest.approx([0.0, *starts(patches)][: len(clip.indices)], abs=1e-4)


def test_the_poster_of_an_apng_is_no_frame(tmp_path: Path) -> None:
    patches = random_patches(6)
    path = tmp_path / "a.png"
    path.write_bytes(apng_bytes(patches, poster=np.full((16, 24, 4), 200, np.uint8)))
    clip = read_here(path, EVERY_FRAME)
    assert clip.video.num_frames == len(patches)
    assert_true(clip, expected(path, patches))


def test_a_gif_that_does_not_move_is_a_still(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", random_patches(7, count=1), 7)
    info = read_here(path).video
    assert (info.num_frames, info.duration_seconds, info.fps) == (1, 0.0, 0.0)


@pytest.mark.parametrize(("name", "other"), [("a.gif", ReaderName.OPENCV), ("a.png", ReaderName.PILLOW)])
def test_gif_and_apng_have_one_reader(tmp_path: Path, name: str, other: ReaderName) -> None:
    path = write(tmp_path / name, random_patches(8), 8)
    assert read_here(path, reader=ReaderName.PYAV).reader == "pyav"
    with pytest.raises(UnreadableVideoError, match=f"“{other}” does not read"):
        read_here(path, reader=other)


def write_webp(path: Path) -> Path:
    pictures = [Image.fromarray(numbered_picture(number)).convert("RGBA") for number in range(5)]
    clear = Image.new("RGBA", pictures[0].size, (255, 255, 255, 0))
    milliseconds = [70, 0, 1500, 40, 33, 100]
    pictures[0].save(path, save_all=True, append_images=[*pictures[1:], clear], duration=milliseconds, lossless=True)
    return path


def test_an_animated_webp(tmp_path: Path) -> None:
    clip = read_here(write_webp(tmp_path / "a.webp"), EVERY_FRAME)
    assert [number_in(frame) for frame in clip.frames[:5]] == [0, 1, 2, 3, 4]
    assert not clip.frames[5].any(), "what is transparent is black"
    assert clip.timestamps_seconds == pytest.approx([0, 0.07, 0.17, 1.67, 1.71, 1.743])
    assert clip.video.duration_seconds == pytest.approx(1.843)
    assert (clip.video.codec, clip.reader, clip.warnings) == ("webp", "pillow", ())


def test_single_frames_of_an_animated_webp(tmp_path: Path) -> None:
    with reader_here(write_webp(tmp_path / "a.webp")) as reader:
        for index in (4, 1):
            (frame,) = reader.read([index])
            assert number_in(frame.pixels) == index


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_webp_is_unreadable(tmp_path: Path, share: float) -> None:
    path = write_webp(tmp_path / "a.webp")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableVideoError):
        read_here(path)
