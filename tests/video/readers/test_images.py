"""Stills and folders of images: right colours, upright, in order; nothing opened that is no picture, none too large."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import ReaderName, SamplingOptions
from sfvqa.video.readers import images
from sfvqa.video.readers.local_file import natural_order, pictures_in

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import HEIGHT, WIDTH, Recipe, constant_rate, number_in, numbered_picture


def numbered(number: int) -> Image.Image:
    return Image.fromarray(numbered_picture(number))


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_a_still_is_one_frame(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    numbered(77).save(path)
    clip = read_here(path)
    assert number_in(clip.frames[0]) == 77
    assert clip.timestamps_seconds == (0.0,)
    info = clip.video
    assert (info.num_frames, info.fps, info.duration_seconds) == (1, 0.0, 0.0)
    assert (info.width, info.height, info.path) == (WIDTH, HEIGHT, path)
    assert info.codec == {"jpg": "jpeg"}.get(suffix, suffix)
    assert clip.warnings == ()


def with_palette_and_transparency(path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 100, 50, 9, 9, 9])
    image.putpixel((1, 0), 1)
    image.save(path, transparency=bytes([255, 128]))


def with_one_transparent_grey(path: Path) -> None:
    image = Image.new("L", (2, 1), 90)
    image.putpixel((1, 0), 91)
    image.save(path, transparency=91)


def png16(path: Path) -> None:
    """Two RGB pixels of 16 bits, which Pillow cannot write."""
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">6H", 0xC8FF, 0x6400, 0x3280, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(c)) + k + c + zlib.crc32(k + c).to_bytes(4) for k, c in chunks)
    )


def grey(mode: str, value: int | tuple[int, ...]) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (2, 1), value).save(path)


COLOURS: dict[str, tuple[Callable[[Path], None], tuple[int, int, int]]] = {
    "1-bit.png": (grey("1", 1), (255, 255, 255)),
    "grey.png": (grey("L", 90), (90, 90, 90)),
    "grey of 16 bits.png": (grey("I;16", 0x5AC3), (90, 90, 90)),
    "grey of 16 bits.tiff": (grey("I;16", 0x5AC3), (90, 90, 90)),
    "colour of 16 bits.png": (png16, (200, 100, 50)),
    "grey and alpha.png": (grey("LA", (90, 128)), (45, 45, 45)),
    "alpha.png": (grey("RGBA", (200, 100, 50, 128)), (100, 50, 25)),
    "alpha.webp": (
        lambda path: Image.new("RGBA", (2, 1), (200, 100, 50, 128)).save(path, lossless=True), (100, 50, 25)),
    "clear.png": (grey("RGBA", (200, 100, 50, 0)), (0, 0, 0)),
    "palette.png": (with_palette_and_transparency, (200, 100, 50)),
    "one clear grey.png": (with_one_transparent_grey, (90, 90, 90)),
    "inks.jpg": (lambda path: Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=100), (255, 0, 0)),
    "inks.tiff": (grey("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
    "brightness and colour.jpg": (lambda path: Image.new("RGB", (8, 8), (200, 100, 50)).save(path), (200, 100, 50)),
}  # fmt: skip


@pytest.mark.parametrize("name", COLOURS)
def test_every_kind_of_pixel_becomes_rgb(tmp_path: Path, name: str) -> None:
    save, colour = COLOURS[name]
    save(tmp_path / name)
    frame = read_here(tmp_path / name).frames[0]
    assert frame.dtype == np.uint8
    assert np.abs(frame[0, 0].astype(int) - colour).max() <= 2


def test_one_clear_colour_is_black(tmp_path: Path) -> None:
    with_one_transparent_grey(tmp_path / "a.png")
    with_palette_and_transparency(tmp_path / "b.png")
    assert read_here(tmp_path / "a.png").frames[0, 0, 1].tolist() == [0, 0, 0]
    assert read_here(tmp_path / "b.png").frames[0, 0, 1].tolist() == [5, 5, 5]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_white_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (2, 1), 1000).save(tmp_path / "a.tiff")
    with pytest.raises(UnreadableVideoError, match="without a known white"):
        read_here(tmp_path / "a.tiff")


STORED = {
    1: (None, 0),
    2: (Image.Transpose.FLIP_LEFT_RIGHT, 0),
    3: (Image.Transpose.ROTATE_180, 180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, 180),
    5: (Image.Transpose.TRANSPOSE, 90),
    6: (Image.Transpose.ROTATE_90, 270),
    7: (Image.Transpose.TRANSVERSE, 270),
    8: (Image.Transpose.ROTATE_270, 90),
}
"""How a camera stores an upright picture under each EXIF orientation, and how far it has to be turned back."""


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
def test_pictures_stand_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored, rotation = numbered(91), STORED[orientation]
    if rotation[0] is not None:
        stored = stored.transpose(rotation[0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif)
    clip = read_here(tmp_path / f"a.{suffix}")
    assert number_in(clip.frames[0]) == 91
    assert (clip.video.width, clip.video.height) == (WIDTH, HEIGHT)
    if suffix != "tiff":  # there Pillow turns by itself
        assert clip.video.rotation == rotation[1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.filterwarnings("error")  # a warning, too, would be said, or end the reading
def test_damaged_notes_do_not_matter(tmp_path: Path, capfd: pytest.CaptureFixture[str], suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    numbered(5).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert number_in(read_here(path).frames[0]) == 5
    assert capfd.readouterr() == ("", "")


def test_of_several_pictures_in_a_file_the_first_is_read(tmp_path: Path) -> None:
    numbered(1).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[numbered(2)])
    clip = read_here(tmp_path / "a.jpg")
    assert (number_in(clip.frames[0]), clip.video.codec, clip.warnings) == (1, "jpeg", ())
    numbered(1).transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "a.tiff", save_all=True, append_images=[numbered(2)], tiffinfo={0x0112: 6}
    )
    clip = read_here(tmp_path / "a.tiff")
    assert number_in(clip.frames[0]) == 1
    assert "more than one page" in clip.warnings[0]


def test_the_preview_of_a_raw_photograph_is_not_the_photograph(tmp_path: Path) -> None:
    numbered(1).save(tmp_path / "a.dng", "TIFF", tiffinfo={254: 1})
    with pytest.raises(UnreadableVideoError, match="preview"):
        read_here(tmp_path / "a.dng")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.995])
def test_a_cut_picture_is_an_error_and_no_half_picture(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    numbered(3).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UnreadableVideoError) as raised:
        read_here(path)
    assert raised.value.remedy


@pytest.mark.parametrize("level", [0, 6])
def test_no_flipped_byte_gives_a_wrong_png(tmp_path: Path, level: int) -> None:
    """Without compression nothing but the checksums tells."""
    path = tmp_path / "a.png"
    numbered(3).save(path, compress_level=level)
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            frame = read_here(path).frames[0]
        except UnreadableVideoError:
            continue
        assert (frame == numbered_picture(3)).all(), f"byte {place}"


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (60000, 60000), (0x7FFFFFFF, 1)])
@pytest.mark.parametrize("suffix", ["png", "gif", "bmp"])
def test_a_picture_that_would_fill_the_memory(tmp_path: Path, suffix: str, width: int, height: int) -> None:
    path = tmp_path / f"a.{suffix}"
    numbered(1).save(path)
    content = bytearray(path.read_bytes())
    at, form = {"png": (16, ">II"), "gif": (6, "<HH"), "bmp": (18, "<ii")}[suffix]
    if suffix == "gif":
        width, height = min(width, 0xFFFF), min(height + 2000, 0xFFFF)
    content[at : at + struct.calcsize(form)] = struct.pack(form, width, height)
    if suffix == "png":
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4)
    path.write_bytes(content)
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(UnreadableVideoError, match="pixels"):
        read_here(path)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_webp_that_would_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbered(1).save(tmp_path / "a.webp")
    monkeypatch.setattr(images, "MAX_WHOLE_BYTES", 1000)
    with pytest.raises(UnreadableVideoError):
        read_here(tmp_path / "a.webp")


def test_content_counts_and_not_the_name(video: WriteVideo, tmp_path: Path) -> None:
    recipe = Recipe(constant_rate(4))
    (tmp_path / "a.png").write_bytes(video("four.mp4", recipe).read_bytes())
    assert read_here(tmp_path / "a.png").reader == "pyav"
    numbered(8).save(tmp_path / "a.mp4", "JPEG")
    assert read_here(tmp_path / "a.mp4").video.codec == "jpeg"


@pytest.mark.parametrize("name", ["a.mjpeg", "a.avi", "a.mov"])
def test_jpeg_frames_in_a_stream_are_a_video(video: WriteVideo, name: str) -> None:
    path = video(f"motion-{name}", Recipe(constant_rate(6), codec="mjpeg"))
    clip = read_here(path)
    assert clip.video.num_frames == 6
    assert [number_in(frame) for frame in clip.frames] == list(range(6))


def test_a_cameras_stream_of_jpegs_is_entered_at_a_frame(video: WriteVideo, tmp_path: Path) -> None:
    """Under another name, or where the first frame is large, FFmpeg takes it for a pipe of pictures."""
    path = tmp_path / "camera.bin"
    path.write_bytes(video("motion-camera.mjpeg", Recipe(constant_rate(40), codec="mjpeg")).read_bytes())
    for places in (range(40), [33], [7, 20]):
        with reader_here(path) as opened:
            assert [number_in(frame.pixels) for frame in opened.read(places)] == list(places)
            assert (opened.name, opened.missing, opened.warnings) == (ReaderName.PYAV, (), ())


@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n\0", b"%PDF-1.4\n\0", b"P6 1 1 255\n\0\0\0", b"8BPS\0\1" * 9],
)
def test_other_formats_of_pillow_are_not_opened(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(UnreadableVideoError, match="cannot be read as a video"):
        read_here(tmp_path / "a.png")


@pytest.mark.parametrize("reader", [ReaderName.PYAV, ReaderName.OPENCV], ids=str)
def test_a_reader_of_videos_reads_no_picture(tmp_path: Path, reader: ReaderName) -> None:
    numbered(1).save(tmp_path / "1.png")
    for path in (tmp_path / "1.png", tmp_path):
        with pytest.raises(UnreadableVideoError, match=f"“{reader}” does not read") as raised:
            read_here(path, reader=reader)
        assert "--reader pillow" in raised.value.remedy
    assert read_here(tmp_path, reader=ReaderName.PILLOW).reader == "pillow"


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number, name in enumerate(["a.png", "frame1.png", "Frame2.JPG", "frame10.webp", "frame010.bmp", "z.tif"]):
        numbered(number).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "clip.mp4").write_bytes(b"no picture")
    (tmp_path / "deeper.png").mkdir()
    numbered(99).save(tmp_path / ".hidden.png")
    clip = read_here(tmp_path)
    # 010 and 10 are the same number: the plain name decides.
    assert [number_in(frame) for frame in clip.frames] == [0, 1, 2, 4, 3, 5]
    assert clip.timestamps_seconds == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    info = clip.video
    assert (info.num_frames, info.fps, info.duration_seconds, info.codec) == (6, 1.0, 6.0, "png")
    assert (info.path, clip.reader) == (tmp_path, "pillow")
    assert "one per second" in clip.warnings[0]
    assert read_here(tmp_path, SamplingOptions(start_seconds=2, end_seconds=3)).indices == (2, 3)


def test_natural_order_is_total() -> None:
    names = ["b2", "b10", "B2", "2", "10", "a", "", "b02", "b2x", "b²"]
    assert sorted(names, key=natural_order) == ["", "2", "10", "a", "B2", "b02", "b2", "b2x", "b10", "b²"]


def test_an_unreadable_picture_is_left_out_and_named(tmp_path: Path) -> None:
    for number in range(6):
        numbered(number).save(tmp_path / f"{number}.png")
    for number in (0, 3):
        path = tmp_path / f"{number}.png"
        path.write_bytes(path.read_bytes()[:200])
    (tmp_path / "6.jpg").write_bytes(b"")
    clip = read_here(tmp_path)
    assert [frame.index for frame in clip.missing] == [0, 3, 6]
    assert clip.missing[1].reason == "“3.png” cannot be read"
    assert [number_in(frame) for frame in clip.frames] == [1, 2, 4, 5]
    assert clip.timestamps_seconds == (1.0, 2.0, 4.0, 5.0)
    assert any("3 of the 7 frames" in warning and "“0.png” cannot be read" in warning for warning in clip.warnings)


def test_pictures_of_other_sizes_are_said(tmp_path: Path) -> None:
    numbered(0).save(tmp_path / "0.png")
    numbered(1).resize((2 * WIDTH, 3 * HEIGHT)).save(tmp_path / "1.png")
    clip = read_here(tmp_path)
    bar = WIDTH // 6  # a picture of 1:1 in one of 3:2
    assert [number_in(clip.frames[0]), number_in(clip.frames[1, :, bar:-bar])] == [0, 1]
    assert not clip.frames[1, :, : bar - 1].any()
    assert any("1 frame was fitted" in warning for warning in clip.warnings)


def test_a_folder_without_a_readable_picture(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideoError, match="holds no images") as raised:
        read_here(tmp_path)
    assert "png" in raised.value.remedy
    (tmp_path / "a.png").write_bytes(b"x\0")
    (tmp_path / "b.png").write_bytes(b"x\0")
    with pytest.raises(UnreadableVideoError, match="no image that can be read"):
        read_here(tmp_path)


def test_only_what_is_asked_for_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        numbered(number).save(tmp_path / f"{number}.bmp")
    opened: list[str] = []
    read_picture = images.read_picture

    def note(file: Path) -> images.Picture:
        opened.append(file.stem)
        return read_picture(file)

    monkeypatch.setattr(images, "read_picture", note)
    with reader_here(tmp_path) as reader:
        assert opened == ["0"]  # for its size
        assert [number_in(frame.pixels) for frame in reader.read([7, 29])] == [7, 29]
    assert opened == ["0", "7", "29"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_named_like_a_picture_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    numbered(1).save(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to("b.png")
    assert [path.name for path in pictures_in(tmp_path)] == ["b.png", "c.png"]
