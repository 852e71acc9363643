"""What a file says once must be known wherever reading starts: a palette, new headers of the codec."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from sfvqa.video import ReaderName, SamplingOptions, VideoReader
from sfvqa.video.readers.frame_table import DecoderStates, starts_afresh
from sfvqa.video.readers.tracks import open_container

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import Recipe, constant_rate, number_in, write_video

PARTS = [
    Recipe(constant_rate(50), group=10),
    Recipe(constant_rate(50), group=10, options={"x264-params": "scenecut=0:cabac=0"}),
]
HEVC_PARTS = [
    Recipe(constant_rate(50), "libx265", options={"x265-params": f"keyint=10:bframes=0:log-level=none:{more}"})
    for more in ("ctu=16", "ctu=32:amp=1")
]


def write_palettes(path: Path, codec: str = "rawvideo") -> Path:
    """Ten pictures of 8 bits, all of one palette: its colour n stands for the n-th step from blue to red."""
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 0], palette[:, 1], palette[:, 3] = 255, np.arange(256), 255 - np.arange(256)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "pal8"
        for place in range(10):
            frame = av.VideoFrame.from_ndarray((np.full((48, 64), 20 * place, np.uint8), palette), format="pal8")  # type: ignore[arg-type]  # a picture and its palette
            frame.pts, frame.time_base = place, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [("raw.avi", "rawvideo"), ("raw.mov", "rawvideo"), ("raw.nut", "rawvideo"), ("rle.avi", "msrle"), ("a.mov", "smc")],
)
def test_a_palette_survives_a_seek(tmp_path: Path, name: str, codec: str) -> None:
    """8-bit recordings of laboratory cameras were black: the palette comes with the first packet alone."""
    path = write_palettes(tmp_path / name, codec)
    with reader_here(path, ReaderName.PYAV) as opened:
        for indices in (list(range(10)), [7], [0]):
            for frame in opened.read(indices):
                level = 20 * frame.index
                assert frame.pixels.mean(axis=(0, 1)) == pytest.approx([level, 0, 255 - level], abs=1)


def tags(flv: bytes) -> list[tuple[int, int, bytes]]:
    """Kind, milliseconds and data of each tag of an FLV file."""
    found, at = [], 13
    while at < len(flv):
        size = int.from_bytes(flv[at + 1 : at + 4])
        milliseconds = flv[at + 7] << 24 | int.from_bytes(flv[at + 4 : at + 7])
        found.append((flv[at], milliseconds, flv[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return found


def join_flv(parts: list[Path], path: Path) -> Path:
    """A live stream whose header changes: each part 2 s after the one before, with one description in front."""
    content = bytearray(parts[0].read_bytes()[:13])
    for number, part in enumerate(parts):
        for kind, milliseconds, data in tags(part.read_bytes()):
            if not (kind == 9 and data[1] == 2) and not (kind == 18 and number):  # no end of sequence
                time = milliseconds + 2000 * number
                head = (
                    bytes([kind]) + len(data).to_bytes(3) + (time & 0xFFFFFF).to_bytes(3) + bytes([time >> 24, 0, 0, 0])
                )
                content += head + data + (11 + len(data)).to_bytes(4)
    path.write_bytes(content)
    return path


def test_new_headers_in_an_flv_survive_a_seek(tmp_path: Path) -> None:
    """Half of a recorded live stream was called damaged."""
    parts = [write_video(tmp_path / f"{number}.flv", recipe) for number, recipe in enumerate(PARTS)]
    path = join_flv([*parts, parts[0]], tmp_path / "live.flv")
    assert_every_frame_is_right_in_any_order(path, 150)
    clip = read_here(path, SamplingOptions(num_frames=8, start_seconds=2.5, end_seconds=3.5), reader=ReaderName.PYAV)
    assert (clip.missing, clip.warnings) == ((), ())
    assert [number_in(frame) for frame in clip.frames] == [index - 50 for index in clip.indices]


@pytest.mark.parametrize(
    ("parts", "headers", "filler"),
    [
        (PARTS, (b"\0\0\1\x67\x64\0", b"\0\0\1\x68"), b"\x0c"),
        (HEVC_PARTS, (b"\0\0\1\x40\1", b"\0\0\1\x42\1", b"\0\0\1\x44\1"), b"\x4c"),
    ],
    ids=["h264", "hevc"],
)
def test_headers_that_a_transport_stream_says_once_survive_a_seek(
    tmp_path: Path, parts: list[Recipe], headers: tuple[bytes, ...], filler: bytes
) -> None:
    """After the change HEVC frames were wrong without a word, and H.264 ones missing."""
    path = tmp_path / "once.ts"
    with av.open(str(path), "w") as target:
        stream = None
        for number, recipe in enumerate(parts):
            with av.open(str(write_video(tmp_path / f"{number}.ts", recipe))) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                packets = [packet for packet in source.demux(video=0) if packet.size]
                start = min(packet.pts or 0 for packet in packets)
                for packet in packets:
                    packet.stream = stream
                    packet.pts = (packet.pts or 0) - start + 180_000 * number
                    packet.dts = (packet.dts or 0) - start + 180_000 * number
                    target.mux(packet)
    content = path.read_bytes()
    for header in headers:  # all but the first of each part become filler
        first, *further = re.split(re.escape(header), content)
        assert len(further) == 10
        content = first + b"".join(
            (header if number % 5 == 0 else header[:3] + filler + header[4:]) + piece
            for number, piece in enumerate(further)
        )
    path.write_bytes(content)
    assert_every_frame_is_right_in_any_order(path, 100)


def assert_every_frame_is_right_in_any_order(path: Path, num_frames: int) -> None:
    with reader_here(path, ReaderName.PYAV) as opened:
        assert len(opened.timestamps_seconds) == num_frames
        for indices in (list(range(num_frames)), [num_frames - 3], [55], [5], [num_frames - 30]):
            assert numbers(opened, indices) == [index % 50 for index in indices]
        assert opened.warnings == ()


def numbers(opened: VideoReader, indices: list[int]) -> list[int | None]:
    return [number_in(frame.pixels) for frame in opened.read(indices)]


def test_a_palette_outlives_damage_where_everything_is_decoded_in_order(tmp_path: Path) -> None:
    """The packet that brings it may be one that is passed over."""
    with av.open(str(write_palettes(tmp_path / "raw.avi"))) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        states = DecoderStates()
        assert [len(states.before(packet).side_data) for packet in packets] == [1] * 10
        states.before(packets[0]).hand_over(container.streams.video[0].codec_context, packets[5])
        assert packets[5].has_sidedata("palette")


# --- Key frames of H.264 that start afresh, by the first bytes of their slices (ITU-T H.264, 7.3.1 and 7.3.3) ---


HEADERS = [b"\x09\x10", b"\x67\x64\x00\x0b", b"\x68\xeb", b"\x06\x06\x01\xc4"]
SLICES = {
    "IDR": (b"\x65\x88\x84", True),
    "I in the one way": (b"\x41\x88\x84", False),
    "I in the other": (b"\x61\xb3\x84", False),
    "P in the one way": (b"\x41\x9a\x24", False),
    "P in the other": (b"\x21\xe1\x24", False),
    "noise in which nothing refers to it": (b"\x01\x88\x84", True),
    "noise in which a bit is set that never is": (b"\xc1\x88\x84", True),
    "noise in which it is no first slice": (b"\x41\x40\x84", True),
    "a byte": (b"\x41", True),
    "nothing": (b"", True),
}


@pytest.mark.parametrize("name", ["fresh.mp4", "fresh.ts"])
@pytest.mark.parametrize("kind", SLICES)
def test_only_a_picture_that_plainly_is_another_does_not(video: WriteVideo, name: str, kind: str) -> None:
    """Noise in one key frame must not make the decoder lenient with the whole file."""
    unit, is_fresh = SLICES[kind]
    units = [*HEADERS, *([unit] if unit else [])]
    prefixes = [len(each).to_bytes(4) if name.endswith("mp4") else b"\0\0\0\1" for each in units]
    data = b"".join(prefix + each for prefix, each in zip(prefixes, units, strict=True))
    with open_container(video(name, Recipe(constant_rate(3)))) as container:
        assert starts_afresh(av.Packet(data), container.streams.video[0].codec_context) == is_fresh  # type: ignore[arg-type]


def test_of_other_codecs_every_key_frame_does(video: WriteVideo) -> None:
    with open_container(video("fresh.avi", Recipe(constant_rate(3), "mpeg4"))) as container:
        context = container.streams.video[0].codec_context
        assert starts_afresh(av.Packet(b"\0\0\1\x41\x88"), context)  # type: ignore[arg-type]
