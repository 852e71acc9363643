"""Every picture looks as a player shows it: colours by the numbers of the standards, shapes by known pictures."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import Clip, ReaderName
from sfvqa.video.readers import picture_converter
from sfvqa.video.readers.picture_converter import size_with_square_pixels, usable_pixel_aspect

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..stored import (
    BT601_525,
    BT601_625,
    BT709,
    BT2020,
    FULL,
    LIMITED,
    LOSSLESS_H264,
    LOSSLESS_HEVC,
    RGB,
    SMPTE240M,
    YCGCO,
    Stored,
    write_flat,
    write_frames,
)
from ..videos import HEIGHT, WIDTH, Recipe, constant_rate, number_in, numbered_picture

KR_KB = {
    BT709: (0.2126, 0.0722),
    BT601_625: (0.299, 0.114),
    BT601_525: (0.299, 0.114),
    SMPTE240M: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
}
ORANGE = (100, 90, 200)  # Y′, C′b, C′r in 8 bits


def rgb_of(values: Sequence[int], matrix: int, is_full: bool = False, bits: int = 8) -> list[float]:
    """R′G′B′ from 0 to 255 (ITU-T H.273, equations 8.3 on)."""
    kr, kb = KR_KB[matrix]
    scale = 1 << (bits - 8)
    luma_range, chroma_range, black = (255, 255, 0) if is_full else (219, 224, 16)
    y = (values[0] / scale - black) / luma_range
    cb, cr = ((value / scale - 128) / chroma_range for value in values[1:3])
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    green = (y - kr * red - kb * blue) / (1 - kr - kb)
    return [min(max(255 * value, 0.0), 255.0) for value in (red, green, blue)]


def colour_in(path: Path, reader: ReaderName = ReaderName.PYAV) -> tuple[list[float], Clip]:
    clip = read_here(path, reader=reader)
    assert len(clip.indices) == 2
    pixels = clip.frames[0]
    assert np.ptp(pixels.reshape(-1, 3).astype(int), axis=0).max() <= 4, "one colour all over"
    return [float(value) for value in pixels.reshape(-1, 3).mean(axis=0)], clip


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("color_range", [LIMITED, FULL])
def test_the_matrix_and_range_of_the_tag_are_used(
    tmp_path: Path, reader: ReaderName, matrix: int, color_range: int
) -> None:
    path = write_flat(
        tmp_path / "tagged.mp4",
        Stored("libx264", "yuv420p", ORANGE, matrix=matrix, color_range=color_range, options=LOSSLESS_H264),
    )
    colour, clip = colour_in(path, reader)
    assert colour == pytest.approx(rgb_of(ORANGE, matrix, color_range == FULL), abs=3)
    assert clip.warnings == ()


@pytest.mark.parametrize(
    ("size", "matrix"), [((720, 576), BT601_625), ((1280, 96), BT709), ((144, 720), BT709), ((144, 576), BT601_625)]
)
def test_without_a_tag_hd_is_bt709_and_less_is_bt601(tmp_path: Path, size: tuple[int, int], matrix: int) -> None:
    path = write_flat(tmp_path / "untagged.mp4", Stored("libx264", "yuv420p", ORANGE, size=size, options=LOSSLESS_H264))
    assert colour_in(path)[0] == pytest.approx(rgb_of(ORANGE, matrix), abs=3)


def test_a_matrix_that_is_not_known_is_said(tmp_path: Path) -> None:
    stored = Stored("libx264", "yuv420p", ORANGE, matrix=YCGCO, options=LOSSLESS_H264)
    _, clip = colour_in(write_flat(tmp_path / "ycgco.mp4", stored))
    assert "colours" in clip.warnings[0]


TEN_BITS = [4 * value for value in ORANGE]
YUV = {
    "4:2:0 10 bit.mp4": Stored("libx264", "yuv420p10le", TEN_BITS, options=LOSSLESS_H264),
    "4:2:2.mp4": Stored("libx264", "yuv422p", ORANGE, options=LOSSLESS_H264),
    "4:2:2 10 bit.mov": Stored("prores", "yuv422p10le", TEN_BITS),
    "4:4:4.mp4": Stored("libx264", "yuv444p", ORANGE, options=LOSSLESS_H264),
    "4:4:4 10 bit odd.mp4": Stored("libx265", "yuv444p10le", TEN_BITS, size=(145, 97), options=LOSSLESS_HEVC),
    "4:2:0 odd.mkv": Stored("ffv1", "yuv420p", ORANGE, size=(145, 97)),
    "4:1:1.mkv": Stored("ffv1", "yuv411p", ORANGE),
    "vp9.webm": Stored("libvpx-vp9", "yuv420p", ORANGE),
    "vp9 4:4:4.webm": Stored("libvpx-vp9", "yuv444p", ORANGE),
    "mpeg2.mpg": Stored("mpeg2video", "yuv420p", ORANGE),
}


@pytest.mark.parametrize("name", YUV)
def test_every_kind_of_yuv_gives_the_same_colour(tmp_path: Path, reader: ReaderName, name: str) -> None:
    stored = YUV[name]
    colour, clip = colour_in(write_flat(tmp_path / name, stored), reader)
    assert colour == pytest.approx(rgb_of(ORANGE, BT601_625), abs=4)
    assert clip.frames.shape[1:] == (stored.size[1], stored.size[0], 3)
    assert (clip.video.width, clip.video.height) == stored.size
    may_be_hdr = [warning for warning in clip.warnings if "10-bit video is HDR" in warning]
    assert len(may_be_hdr) == (reader is ReaderName.OPENCV and "10 bit" in name)


PLAIN_COLOURS = {
    "grey.mkv": (Stored("ffv1", "gray", [100]), [100, 100, 100]),
    "grey 10 bit.mkv": (Stored("ffv1", "gray10le", [400]), [100, 100, 100]),
    "grey 16 bit.mkv": (Stored("ffv1", "gray16le", [100 * 257]), [100, 100, 100]),
    "grey png.mov": (Stored("png", "gray", [100]), [100, 100, 100]),
    "grey h264.mp4": (Stored("libx264", "gray", [16], options=LOSSLESS_H264), [0, 0, 0]),
    "rgb 10 bit.mkv": (Stored("ffv1", "gbrp10le", [400, 360, 800]), [200, 100, 90]),
    "rgb hevc.mp4": (Stored("libx265", "gbrp", [100, 90, 200], matrix=RGB, options=LOSSLESS_HEVC), [200, 100, 90]),
}


@pytest.mark.parametrize("name", PLAIN_COLOURS)
def test_grey_and_rgb(tmp_path: Path, reader: ReaderName, name: str) -> None:
    stored, expected = PLAIN_COLOURS[name]
    assert colour_in(write_flat(tmp_path / name, stored), reader)[0] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(("luma", "shown"), [(64, 0), (500, 127), (940, 255)])
def test_grey_in_limited_range_is_stretched(tmp_path: Path, luma: int, shown: int) -> None:
    """FFmpeg itself, and OpenCV with it, takes it for full range."""
    options = {"x265-params": "bframes=0:log-level=none"}
    grey = Stored("libx265", "gray10le", [luma], color_range=LIMITED, options=options)
    assert colour_in(write_flat(tmp_path / "grey.mp4", grey))[0] == pytest.approx([shown] * 3, abs=2)


@pytest.mark.parametrize(
    ("codec", "name", "alpha", "expected"),
    [
        ("gif", "a.gif", 255, [200, 100, 90]),
        ("png", "a.mov", 255, [200, 100, 90]),
        ("png", "a.mov", 128, [100, 50, 45]),
    ],
)
def test_a_palette_is_looked_up(tmp_path: Path, codec: str, name: str, alpha: int, expected: list[int]) -> None:
    frame = av.VideoFrame(144, 96, "pal8")
    image, palette = frame.planes
    np.frombuffer(memoryview(image), np.uint8)[:] = 7
    colours = np.frombuffer(memoryview(palette), np.uint32)  # ARGB
    colours[:] = 0xFF << 24
    colours[7] = alpha << 24 | 200 << 16 | 100 << 8 | 90
    path = write_frames(tmp_path / name, Stored(codec, "pal8"), [frame, frame])
    assert colour_in(path)[0] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    "stored",
    [
        Stored("prores_ks", "yuva444p10le", [*TEN_BITS, 512]),
        Stored("ffv1", "yuva420p", [*ORANGE, 128]),
        Stored("ffv1", "gbrap10le", [400, 360, 800, 512]),
    ],
    ids=lambda stored: f"{stored.codec} {stored.pix_fmt}",
)
def test_alpha_is_shown_over_black(tmp_path: Path, stored: Stored) -> None:
    path = write_flat(tmp_path / ("half.mov" if stored.codec == "prores_ks" else "half.mkv"), stored)
    opaque = [200, 100, 90] if stored.pix_fmt.startswith("gbr") else rgb_of(ORANGE, BT601_625)
    assert colour_in(path)[0] == pytest.approx([value / 2 for value in opaque], abs=2)
    _, clip = colour_in(path, ReaderName.OPENCV)
    assert "transparency" in clip.warnings[0]


def test_the_alpha_of_vp9_is_seen(tmp_path: Path) -> None:
    """It is a stream beside the picture's, which FFmpeg's own decoder leaves out without a word."""
    path = write_flat(tmp_path / "half.webm", Stored("libvpx-vp9", "yuva420p", [*ORANGE, 128]))
    assert colour_in(path)[0] == pytest.approx([value / 2 for value in rgb_of(ORANGE, BT601_625)], abs=2)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "name"),
    [("qtrle", "argb", "a.mov"), ("png", "rgba", "a.mov"), ("ffv1", "bgra", "a.mkv"), ("ffv1", "ya8", "a.mkv")],
)
def test_packed_alpha_is_shown_over_black(tmp_path: Path, codec: str, pix_fmt: str, name: str) -> None:
    path = write_flat(tmp_path / name, Stored(codec, pix_fmt, [128]))  # every byte, so alpha too
    assert colour_in(path)[0] == pytest.approx([64, 64, 64], abs=1)


@pytest.mark.parametrize("size", [(145, 97), (143, 96), (144, 95)])
@pytest.mark.parametrize("codec", ["libx265", "libvpx-vp9", "ffv1"])
def test_odd_sizes_are_kept(tmp_path: Path, reader: ReaderName, size: tuple[int, int], codec: str) -> None:
    width, height = size
    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 2, : width // 2] = 240
    picture[-1], picture[:, -1] = 16, 16
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv444p") for _ in range(2)]
    options = {"libx265": LOSSLESS_HEVC, "libvpx-vp9": {"lossless": "1"}}.get(codec, {})
    stored = Stored(codec, "yuv444p", options=options)
    clip = read_here(write_frames(tmp_path / "odd.mkv", stored, frames), reader=reader)
    assert clip.frames.shape == (2, height, width, 3)
    assert np.abs(clip.frames[1].astype(int) - picture).max() <= 4


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(16, 15), (154, 96)),
        (Fraction(4, 3), (192, 96)),
        (Fraction(8, 9), (144, 108)),
        (Fraction(1), (144, 96)),
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_become_square(
    tmp_path: Path, reader: ReaderName, aspect: Fraction, size: tuple[int, int], suffix: str
) -> None:
    frames = [av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24") for number in range(3)]
    path = write_frames(tmp_path / f"oblong{suffix}", Stored("libx264", "yuv420p", pixel_aspect=aspect), frames)
    clip = read_here(path, reader=reader)
    assert (clip.video.width, clip.video.height) == size
    assert clip.frames.shape == (3, size[1], size[0], 3)
    assert [number_in(frame) for frame in clip.frames] == [0, 1, 2]
    assert clip.warnings == ()


def test_pixels_of_a_turned_camera_become_square(tmp_path: Path, reader: ReaderName) -> None:
    path = tmp_path / "turned.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2)
        stream.set_display_rotation(90)
        stored = np.ascontiguousarray(np.rot90(numbered_picture(5), -1))
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read_here(path, reader=reader)
    assert (clip.video.width, clip.video.height) == (WIDTH, 2 * HEIGHT)
    assert clip.frames.shape == (1, 2 * HEIGHT, WIDTH, 3)
    assert number_in(clip.frames[0]) == 5


@pytest.mark.parametrize("aspect", [Fraction(20), Fraction(1, 20)])
def test_absurd_pixels_are_taken_to_be_square(tmp_path: Path, reader: ReaderName, aspect: Fraction) -> None:
    path = write_flat(tmp_path / "absurd.mp4", Stored("libx264", "yuv420p", ORANGE, pixel_aspect=aspect))
    with reader_here(path, reader) as opened:
        assert (opened.info.width, opened.info.height) == (144, 96)
        assert "square" in opened.warnings[0]


def test_an_aspect_of_nothing_is_square() -> None:
    for nothing in (None, Fraction(0)):
        assert usable_pixel_aspect(nothing) == (Fraction(1), [])
    assert usable_pixel_aspect(Fraction(1, 1000))[0] == 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_mirrored_and_turned_pictures_stand_upright(tmp_path: Path, rotation: int, mirrored: bool) -> None:
    """The file says: turn counter-clockwise, then mirror left and right."""
    upright = numbered_picture(9)
    before_mirror = upright[:, ::-1] if mirrored else upright
    stored = np.ascontiguousarray(np.rot90(before_mirror, -rotation // 90))
    path = tmp_path / "mirrored.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width, stream.pix_fmt = *stored.shape[:2], "yuv420p"
        stream.set_display_rotation(rotation, hflip=mirrored)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))
    clip = read_here(path, reader=ReaderName.PYAV)
    assert (clip.video.width, clip.video.height, clip.video.rotation) == (WIDTH, HEIGHT, rotation)
    assert number_in(clip.frames[0]) == 9


def test_a_change_of_size_and_format_is_followed(tmp_path: Path) -> None:
    """Two H.264 streams one after the other: the first frame's shape holds for the clip, each frame keeps its own."""
    parts = []
    for pix_fmt, factor, first in (("yuv420p", 1, 0), ("yuv422p10le", 2, 10)):
        pictures = [np.kron(numbered_picture(first + k), np.ones((factor, factor, 1), np.uint8)) for k in range(10)]
        frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
        part = write_frames(tmp_path / f"{first}.h264", Stored("libx264", pix_fmt), frames)
        parts.append(part.read_bytes())
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    with reader_here(path, ReaderName.PYAV) as opened:
        frames_read = list(opened.read(range(20)))
    assert [number_in(frame.pixels) for frame in frames_read] == list(range(20))
    assert [frame.pixels.shape[:2] for frame in frames_read] == [(96, 144)] * 10 + [(192, 288)] * 10
    clip = read_here(path, reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == list(range(20))
    assert "changes its size" in clip.warnings[-1]


def test_a_change_of_size_in_a_transport_stream_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "both.ts"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        larger = av.CodecContext.create("libx264", "w")
        larger.width, larger.height, larger.pix_fmt = 2 * WIDTH, 2 * HEIGHT, "yuv444p"
        larger.time_base, larger.framerate = Fraction(1, 25), Fraction(25)
        for encoder, factor, first in ((stream, 1, 0), (larger, 2, 10)):
            for number in range(first, first + 10):
                picture = np.kron(numbered_picture(number), np.ones((factor, factor, 1), np.uint8))
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                mux(container, stream, encoder.encode(frame))
            mux(container, stream, encoder.encode(None))
    with reader_here(path, ReaderName.PYAV) as opened:
        frames = list(opened.read(range(20)))
    assert [number_in(frame.pixels) for frame in frames] == list(range(20))
    assert [frame.pixels.shape[:2] for frame in frames] == [(96, 144)] * 10 + [(192, 288)] * 10


def mux(container: av.container.OutputContainer, stream: VideoStream, packets: "list[av.Packet[VideoStream]]") -> None:
    for packet in packets:
        packet.stream = stream
        container.mux(packet)


def test_huge_pictures_are_refused(video: WriteVideo, reader: ReaderName, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video("two.mp4", Recipe(constant_rate(2)))
    monkeypatch.setattr(picture_converter, "MAX_PIXELS", WIDTH * HEIGHT)
    with reader_here(path, reader) as opened:
        assert len(list(opened.read([0, 1]))) == 2
        monkeypatch.setattr(picture_converter, "MAX_PIXELS", WIDTH * HEIGHT - 1)
        with pytest.raises(UnreadableVideoError, match="144 × 96"):
            list(opened.read([0]))
    with pytest.raises(UnreadableVideoError, match="144 × 96"):
        reader_here(path, reader)


def test_the_largest_picture_has_2_to_the_26_pixels() -> None:
    assert size_with_square_pixels(8192, 8192, Fraction(1)) == (8192, 8192)
    with pytest.raises(UnreadableVideoError, match="8193 × 8192"):
        size_with_square_pixels(8193, 8192, Fraction(1))
    with pytest.raises(UnreadableVideoError):
        size_with_square_pixels(8192, 4097, Fraction(2))
