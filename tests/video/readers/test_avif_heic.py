"""AVIF and HEIC: tiles are put together, turned and blended; what moves moves; HDR is shown as on any screen."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import SamplingOptions
from sfvqa.video.readers import images

from ..here import read_here
from ..videos import number_in, numbered_picture

FILES = Path(__file__).parents[1] / "files"
RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)  # as ffmpeg's names mean them


def corners(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[list[int]]:
    height, width = pixels.shape[:2]
    places = [(height // 4 * down, width // 4 * right) for down in (1, 3) for right in (1, 3)]
    return [pixels[place].tolist() for place in places]


def test_a_picture_made_of_tiles() -> None:
    """Its first tile alone was seen. Made with `avifenc --grid 2x2` from four plain PNGs of 64 × 64."""
    clip = read_here(FILES / "grid.avif")
    assert clip.frames.shape == (1, 128, 128, 3)
    assert np.abs(np.subtract(corners(clip.frames[0]), [RED, GREEN, BLUE, YELLOW])).max() <= 6
    assert (clip.video.codec, clip.video.duration_seconds, clip.reader, clip.warnings) == ("avif", 0.0, "pillow", ())


def test_a_phones_picture_made_of_tiles_and_turned() -> None:
    """Four tiles by x265 in boxes written by hand: as items `hvc1`, a `grid` of them, which `irot` turns by 90°."""
    pytest.importorskip("pi_heif", reason="there is no pi-heif for this platform")
    clip = read_here(FILES / "grid_turned.heic")
    assert clip.frames.shape == (1, 128, 128, 3)
    turned = [(40, 200, 40), (200, 200, 40), (200, 40, 40), (40, 40, 200)]  # counter-clockwise
    assert np.abs(np.subtract(corners(clip.frames[0]), turned)).max() <= 4
    assert (clip.video.codec, clip.reader, clip.warnings) == ("heif", "pillow", ())


def test_without_what_reads_heic_tiles_are_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_HEIF_BRANDS", ())
    with pytest.raises(UnreadableVideoError, match="made of tiles") as raised:
        read_here(FILES / "grid_turned.heic")
    assert "pip install pi-heif" in raised.value.remedy


def write_animation(path: Path, *, alpha: int = 255, count: int = 6) -> Path:
    pictures = [np.dstack([numbered_picture(k), np.full((96, 144), alpha, np.uint8)]) for k in range(count)]
    first, *others = [Image.fromarray(picture) for picture in pictures]
    first.save(path, save_all=True, append_images=others, duration=[70, 33, 1500, 40, 33, 100][:count], speed=10)
    return path


def test_an_animated_avif_moves(tmp_path: Path) -> None:
    """A still of it was seen, for a second."""
    clip = read_here(write_animation(tmp_path / "a.avif"), SamplingOptions(num_frames=100))
    assert [number_in(frame) for frame in clip.frames] == list(range(6))
    assert clip.timestamps_seconds == pytest.approx([0, 0.07, 0.103, 1.603, 1.643, 1.676])
    assert clip.video.duration_seconds == pytest.approx(1.776)
    assert (clip.video.codec, clip.reader, clip.warnings) == ("avif", "pillow", ())


def test_its_transparency_is_over_black(tmp_path: Path) -> None:
    clip = read_here(write_animation(tmp_path / "a.avif", alpha=128))
    assert np.abs(clip.frames[3] - numbered_picture(3) / 2).mean() < 4


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_cut_avif_gives_no_wrong_frame(tmp_path: Path, share: float) -> None:
    path = write_animation(tmp_path / "a.avif")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    try:
        clip = read_here(path, SamplingOptions(num_frames=100))
    except UnreadableVideoError:
        return
    assert [number_in(frame) for frame in clip.frames] == list(range(len(clip.frames)))
    assert any("damaged" in warning or "early" in warning for warning in clip.warnings)


def test_a_still_avif_and_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(numbered_picture(77))))
    stored.save(tmp_path / "a.avif", exif=exif)
    clip = read_here(tmp_path / "a.avif")
    assert number_in(clip.frames[0]) == 77
    assert (clip.video.num_frames, clip.video.rotation) == (1, 270)


def test_hdr_is_tone_mapped(tmp_path: Path) -> None:
    """A code of 148 is a grey of about 200 cd/m² in PQ: nearly white on a screen."""
    path = tmp_path / "a.avif"
    Image.new("RGB", (64, 64), (148, 148, 148)).save(path)
    plain = path.read_bytes()
    assert np.abs(read_here(path).frames.astype(int) - 148).max() <= 2
    colours = re.search(rb"colrnclx(.{4})", plain, re.DOTALL)
    assert colours is not None
    path.write_bytes(plain[: colours.start(1)] + bytes([0, 9, 0, 16]) + plain[colours.end(1) :])
    assert 220 <= read_here(path).frames.mean() <= 240


def test_pictures_of_phones_in_a_folder(tmp_path: Path) -> None:
    Image.fromarray(numbered_picture(1)).save(tmp_path / "1.jpg", quality=95)
    Image.fromarray(numbered_picture(2)).save(tmp_path / "2.avif")
    assert [number_in(frame) for frame in read_here(tmp_path).frames] == [1, 2]


@pytest.mark.parametrize("brand", [b"miaf", b"MA1B"])
def test_a_folder_reads_whatever_is_read_alone(tmp_path: Path, brand: bytes) -> None:
    """Pillow knows some brands, FFmpeg reads the others; and without pi-heif it reads all that have no tiles."""
    Image.fromarray(numbered_picture(1)).save(tmp_path / "1.jpg", quality=95)
    path = tmp_path / "2.heif"
    Image.fromarray(numbered_picture(2)).save(path, "AVIF")
    content = path.read_bytes()
    path.write_bytes(content[:8] + brand + content[12:])
    assert read_here(path).reader == "pyav"
    clip = read_here(tmp_path)
    assert [number_in(frame) for frame in clip.frames] == [1, 2]
    (tmp_path / "3.heif").write_bytes(content[:8] + brand + content[12:400])
    assert [frame.reason for frame in read_here(tmp_path).missing] == ["“3.heif” cannot be read"]
    (tmp_path / "1.jpg").unlink()
    assert read_here(tmp_path).video.codec == "heif"


def test_what_a_folder_leaves_out_is_named(tmp_path: Path) -> None:
    """A picture in a format that is not read was left out without a word."""
    for number in range(2):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"{number}.png")
    for name in ("2.CR2", "notes.txt", ".hidden.jxl"):
        (tmp_path / name).write_bytes(b"\0")
    clip = read_here(tmp_path)
    assert "The folder has 1 picture in a format that is not read, left out: 2.CR2." in clip.warnings
    for number in range(3, 8):
        (tmp_path / f"{number}.jxl").write_bytes(b"\0")
    assert any(
        "6 pictures" in warning and "2.CR2, 3.jxl, 4.jxl, 5.jxl, …" in warning
        for warning in read_here(tmp_path).warnings
    )
    for number in range(2):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(UnreadableVideoError, match=r"holds no images in a format that is read \(2\.CR2, "):
        read_here(tmp_path)
