"""Videos are told from other files by how they begin, whatever they are called."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfvqa.batch.find_videos import SOUND_SUFFIXES, begins_as_video, is_video
from sfvqa.video.readers.local_file import VIDEO_SUFFIXES
from tests.video.videos import Recipe, constant_rate, write_sound, write_video
from tests.windows import needs_pipes

CONTAINERS = {
    "mp4": "libx264", "mov": "libx264", "3gp": "mpeg4", "mkv": "libx264", "webm": "libvpx", "avi": "mpeg4",
    "ts": "libx264", "m2ts": "libx264", "mpg": "mpeg2video", "m2v": "mpeg2video", "flv": "libx264", "asf": "mpeg4",
    "wmv": "mpeg4", "ogv": "libvpx", "mxf": "mpeg2video", "nut": "mpeg4", "h264": "libx264", "h265": "libx265",
    "ivf": "libvpx", "y4m": "rawvideo",
}  # fmt: skip


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Path], Path]:
    """The same file without its suffix."""

    def copy(path: Path) -> Path:
        path.rename(tmp_path / "nameless")
        return tmp_path / "nameless"

    return copy


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_container_is_known_without_its_suffix(
    suffix: str, tmp_path: Path, copied: Callable[[Path], Path]
) -> None:
    codec = CONTAINERS[suffix]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg writes no {codec}")
    path = write_video(tmp_path / f"clip.{suffix}", Recipe(constant_rate(3), codec=codec))
    assert f".{suffix}" in VIDEO_SUFFIXES
    assert is_video(copied(path))


def test_a_fragmented_mp4_and_one_with_its_data_first_are_known() -> None:
    assert begins_as_video(b"\0\0\0\x18ftypiso5\0\0\0\0", 5000)
    assert begins_as_video(b"\0\0\0\x08wide\0\0\x10\0mdat", 5000)
    assert begins_as_video(b"\0\0\0\x01mdat\0\0\0\x01\0\0\0\0", 5_000_000_000)
    assert not begins_as_video(b"\0\0\xff\xffmdat", 100)


@pytest.mark.parametrize("suffix", ["m4a", "mka", "mp3", "wav", "flac", "ogg"])
def test_sound_is_no_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"sound.{suffix}"
    path.write_bytes(b"OggS\0\x02" + b"\0" * 20 + b"\x01\x1e\x01vorbis" if suffix == "ogg" else b"ID3\x04" * 2000)
    if suffix in ("m4a", "mka"):
        write_sound(path)
    assert not is_video(path)
    assert suffix == "ogg" or f".{suffix}" in SOUND_SUFFIXES


def test_sound_without_its_suffix_is_known_by_its_brand(tmp_path: Path, copied: Callable[[Path], Path]) -> None:
    assert not is_video(copied(write_sound(tmp_path / "sound.m4a")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
@pytest.mark.parametrize("is_animated", [False, True])
def test_animations_are_videos_and_pictures_are_not(kind: str, is_animated: bool, tmp_path: Path) -> None:
    """But for GIF, of which a still one cannot be told from its beginning."""
    first, *others = [Image.fromarray(np.full((8, 8, 3), 40 * n, np.uint8)) for n in range(3)]
    path = tmp_path / "picture"
    first.save(path, kind, **({"save_all": True, "append_images": others, "duration": 100} if is_animated else {}))
    assert is_video(path) == (is_animated or kind == "GIF")


def others() -> dict[str, bytes]:
    archive, jpeg = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("clip.mp4", b"\0" * 100)
    Image.new("RGB", (8, 8)).save(jpeg, "JPEG")
    return {
        "text": b"The free encyclopedia. " * 400,
        "text in Gs": b"G" * 9000,
        "html": b"<!doctype html>",
        "json": b'{"video": "a.mp4"}',
        "zip": archive.getvalue(),
        "jpeg": jpeg.getvalue(),
        "heic": b"\0\0\0\x24ftypheic\0\0\0\0mif1",
        "avif": b"\0\0\0\x24ftypavif\0\0\0\0",
        "still webp": b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x07\0\0\x07\0\0",
        "wav": b"RIFF\x24\0\0\0WAVEfmt ",
        "flv with sound alone": b"FLV\x01\x04\0\0\0\x09",
        "elf": b"\x7fELF\x02\x01\x01" + b"\0" * 4000,
        "zeros": b"\0" * 5000,
        "empty": b"",
        "short": b"\0",
        "mov that says free": b"Be free, and so on.",
    }


@pytest.mark.parametrize("kind", others())
def test_other_files_are_no_videos(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.dat"
    path.write_bytes(others()[kind])
    assert not is_video(path)


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_what_is_called_a_video_is_meant_to_be_one(suffix: str, tmp_path: Path) -> None:
    """So that a broken one is an error, and no gap; upper case too."""
    for name, content in (("a", b""), ("b", b"\0\1\2 half of a download")):
        path = tmp_path / (name + suffix.upper())
        path.write_bytes(content)
        assert is_video(path)


@pytest.mark.parametrize("suffix", [".ts", ".mts"])
def test_typescript_is_no_video(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"index{suffix}"
    path.write_text("import { video } from './vidéo';\r\n\tconst a = 1;\n", encoding="utf-8")
    assert not is_video(path)


@needs_pipes
def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """It would keep us waiting for ever."""
    for name, expected in (("pipe", False), ("pipe.mp4", True), ("pipe.ts", True)):
        os.mkfifo(tmp_path / name)
        assert is_video(tmp_path / name) == expected
