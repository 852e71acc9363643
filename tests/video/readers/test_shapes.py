"""Each frame has the shape that players show: cropped as the container says, with square pixels, whatever changes."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

from sfvqa.video import ReaderName
from sfvqa.video.readers.tracks import Crop

from ..here import read_here, reader_here
from ..patched import add_box, add_to_video
from ..stored import LOSSLESS_H264, Stored, write_frames
from ..videos import HEIGHT, WIDTH, number_in, numbered_picture

BORDER = Crop(left=8, right=24, top=16, bottom=32)
TOP, BOTTOM, LEFT, RIGHT = b"\x54\xbb", b"\x54\xaa", b"\x54\xcc", b"\x54\xdd"  # PixelCrop… of Matroska
NARROW, WIDE = Fraction(8, 9), Fraction(32, 27)  # pixels of 144 × 96 as 4:3 and as 16:9
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"


def bordered(number: int) -> NDArray[np.uint8]:
    """A numbered picture within a border of noise that would make the number another."""
    size = (HEIGHT + BORDER.top + BORDER.bottom, WIDTH + BORDER.left + BORDER.right, 3)
    picture = np.random.default_rng(number).integers(0, 256, size).astype(np.uint8)
    picture[BORDER.top : -BORDER.bottom, BORDER.left : -BORDER.right] = numbered_picture(number)
    return picture


def write_bordered(path: Path, *, rotation: int = 0, x264: str = "") -> Path:
    frames = []
    for number in range(6):
        lying = np.ascontiguousarray(np.rot90(bordered(number), -rotation // 90))
        frames.append(av.VideoFrame.from_ndarray(lying, format="rgb24").reformat(format="yuv420p"))
    how = {"x264-params": x264} if x264 else LOSSLESS_H264
    return write_frames(path, Stored("libx264", "yuv420p", options=how, rotation=rotation), frames)


def clean_aperture(width: int, height: int, right: int, down: int) -> bytes:
    """The content of a clap box: a size, and how far its middle lies from that of the picture."""
    return struct.pack(">8i", width, 1, height, 1, right, 2, down, 2)


@pytest.fixture(params=["mkv", "mp4"])
def cropped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = write_bordered(tmp_path / f"cropped.{request.param}")
    if request.param == "mkv":
        sides = (LEFT, BORDER.left), (RIGHT, BORDER.right), (TOP, BORDER.top), (BOTTOM, BORDER.bottom)
        # As mkvmerge does it: the size on display is that of the cropped picture.
        display = (DISPLAY_UNIT, 0), (DISPLAY_WIDTH, WIDTH), (DISPLAY_HEIGHT, HEIGHT)
        add_to_video(path, (*sides, *display))
    else:
        content = clean_aperture(WIDTH, HEIGHT, BORDER.left - BORDER.right, BORDER.top - BORDER.bottom)
        add_box(path, "avc1", "clap", content)
    return path


def test_what_the_container_crops_is_not_shown(cropped: Path, reader: ReaderName) -> None:
    """A cropped Matroska file was shown uncropped, and stretched by as much."""
    clip = read_here(cropped, reader=reader)
    assert (clip.video.width, clip.video.height) == (WIDTH, HEIGHT)
    assert [number_in(frame) for frame in clip.frames] == list(range(6))
    assert clip.warnings == ()


def test_cropping_follows_the_turn_of_the_camera(tmp_path: Path, reader: ReaderName) -> None:
    path = write_bordered(tmp_path / "turned.mp4", rotation=90)
    # Stored it lies on its side: turned clockwise, so that what is shown at the top is stored at the right.
    content = clean_aperture(HEIGHT, WIDTH, BORDER.bottom - BORDER.top, BORDER.left - BORDER.right)
    add_box(path, "avc1", "clap", content)
    clip = read_here(path, reader=reader)
    assert (clip.video.width, clip.video.height, clip.video.rotation) == (WIDTH, HEIGHT, 90)
    assert [number_in(frame) for frame in clip.frames] == list(range(6))


def test_cropping_of_interlaced_frames_at_odd_places(tmp_path: Path) -> None:
    path = write_bordered(tmp_path / "interlaced.mp4", x264="tff=1:scenecut=0")
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    content = clean_aperture(WIDTH - 2, HEIGHT - 2, BORDER.left - BORDER.right, BORDER.top - BORDER.bottom)
    add_box(path, "avc1", "clap", content)
    clip = read_here(path)
    assert clip.frames.shape == (6, HEIGHT - 2, WIDTH - 2, 3)
    assert [number_in(frame) for frame in clip.frames] == list(range(6))


@pytest.mark.parametrize("interlaced", ["", "tff=1:scenecut=0:"])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le"])
def test_what_the_bitstream_crops_is_not_shown(tmp_path: Path, pix_fmt: str, interlaced: str) -> None:
    """FFmpeg's tools leave what is cut off at the left, but for whole blocks of memory, and give wider frames."""
    sides = f"{BORDER.left},{BORDER.top},{BORDER.right},{BORDER.bottom}"
    frames = [av.VideoFrame.from_ndarray(bordered(number), format="rgb24") for number in range(6)]
    stored = Stored("libx264", pix_fmt, options={"qp": "10", "x264-params": f"{interlaced}crop-rect={sides}"})
    path = write_frames(tmp_path / "cropped.mp4", stored, [frame.reformat(format=pix_fmt) for frame in frames])
    clip = read_here(path, reader=ReaderName.PYAV)
    assert (clip.video.width, clip.video.height) == (WIDTH, HEIGHT)
    assert [number_in(frame) for frame in clip.frames] == list(range(6))


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_crop_turns_with_its_picture(degrees: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    crop = Crop(left=1, right=2, top=3, bottom=4)
    turned = crop.turned(degrees).apply(np.rot90(picture, degrees // 90))
    assert np.array_equal(turned, np.rot90(crop.apply(picture), degrees // 90))


def test_a_crop_of_everything_is_none() -> None:
    assert Crop(left=10, right=20).within(30, 10) == Crop()
    assert Crop(left=10, right=19).within(30, 10) == Crop(left=10, right=19)


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.m2v", "a.h264", "h264.ts", "h264.mkv", "a.mkv"])
def test_a_broadcast_goes_from_4_3_to_16_9_and_back(tmp_path: Path, name: str) -> None:
    """The shape at the start was kept. Frames are shown in another order than they are decoded, so each has its own."""
    codec = "libx264" if "264" in name else "mpeg2video"
    path = write_changing(tmp_path / name, codec, [NARROW, WIDE, NARROW])
    narrow, wide = (WIDTH, round(WIDTH * 3 / 4)), (round(HEIGHT * 16 / 9), HEIGHT)
    with reader_here(path, ReaderName.PYAV) as opened:
        assert (opened.info.width, opened.info.height) == narrow
        frames = list(opened.read(range(30)))
        assert [number_in(frame.pixels) for frame in frames] == list(range(30))
        shapes = [frame.pixels.shape[1::-1] for frame in frames]
        assert shapes == [narrow] * 10 + [wide] * 10 + [narrow] * 10
        (frame,) = opened.read([15])  # reached by a seek
        assert frame.pixels.shape[1::-1] == wide
    clip = read_here(path, reader=ReaderName.PYAV)
    assert clip.frames.shape[1:3] == narrow[::-1]
    assert not clip.frames[15, 0].any(), "between black bars, not squeezed"
    assert number_in(clip.frames[15, 14:-14]) == 15  # of 108 lines 81
    assert "10 frames were fitted" in clip.warnings[-1]


def write_changing(path: Path, codec: str, aspects: Sequence[Fraction]) -> Path:
    """Ten frames with each shape of pixels, as one broadcast that is put into the container."""
    broadcast = path.with_name("broadcast.ts")
    with av.open(str(broadcast), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        for part, aspect in enumerate(aspects):
            encoder = stream.codec_context if part == 0 else av.CodecContext.create(codec, "w")
            assert isinstance(encoder, VideoCodecContext)
            encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
            encoder.sample_aspect_ratio, encoder.max_b_frames, encoder.bit_rate = aspect, 2, 4_000_000
            for number in range(10 * part, 10 * part + 10):
                frame = av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                mux(container, stream, encoder.encode(frame))
            mux(container, stream, encoder.encode(None))
    with av.open(str(broadcast)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        mux(container, stream, [packet for packet in source.demux(video=0) if packet.size])
    return path


def mux(container: av.container.OutputContainer, stream: VideoStream, packets: "list[av.Packet[VideoStream]]") -> None:
    for packet in packets:
        packet.stream = stream
        container.mux(packet)


def test_a_container_that_overrules_the_bitstream_does_so_for_all_of_it(tmp_path: Path) -> None:
    path = write_changing(tmp_path / "a.mkv", "libx264", [NARROW, WIDE])
    add_to_video(path, [(DISPLAY_UNIT, 0), (DISPLAY_WIDTH, 192), (DISPLAY_HEIGHT, HEIGHT)])
    clip = read_here(path, reader=ReaderName.PYAV)
    assert clip.frames.shape == (20, HEIGHT, 192, 3)
    assert clip.warnings == ()
