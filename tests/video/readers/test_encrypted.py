"""What is encrypted is not called damaged, and never shown as what a decoder makes of it."""

import random
from pathlib import Path

import av
import pytest

from sfvqa.errors import EncryptedVideoError, UnreadableVideoError
from sfvqa.video import ReaderName, SamplingOptions

from ..here import read_here, reader_here
from ..videos import Recipe, constant_rate, number_in, write_video

KEY = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
ASF_GUID = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
EVERY_READER = pytest.mark.parametrize("reader", [ReaderName.AUTO, ReaderName.PYAV, ReaderName.OPENCV], ids=str)


@EVERY_READER
@pytest.mark.parametrize("options", [{}, FRAGMENTS], ids=["whole", "in fragments"])
def test_an_encrypted_mp4(tmp_path: Path, reader: ReaderName, options: dict[str, str]) -> None:
    """It was called damaged or cut off, to be downloaded again."""
    recipe = Recipe(constant_rate(20), group=10, container_options={**KEY, **options})
    path = write_video(tmp_path / "locked.mp4", recipe)
    with pytest.raises(EncryptedVideoError, match="is encrypted") as raised:
        read_here(path, reader=reader)
    assert "without encryption" in raised.value.remedy


def as_m2ts(stream: bytes) -> bytes:
    """Each packet after four bytes of time, as cameras and Blu-rays have them."""
    return b"".join(bytes(4) + stream[at : at + 188] for at in range(0, len(stream), 188))


@EVERY_READER
@pytest.mark.parametrize("name", ["locked.ts", "locked.m2ts"])
def test_a_scrambled_transport_stream(tmp_path: Path, reader: ReaderName, name: str) -> None:
    path = write_video(tmp_path / "clear.ts", Recipe(constant_rate(20)))
    with av.open(str(path)) as container:
        track = container.streams.video[0].id
    data, noise = bytearray(path.read_bytes()), random.Random(1)
    for at in range(0, len(data), 188):
        if int.from_bytes(data[at + 1 : at + 3]) & 0x1FFF == track:
            data[at + 3] |= 0x80
            start = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            for place in range(start, at + 188):
                data[place] ^= noise.randrange(256)
    path = tmp_path / name
    path.write_bytes(as_m2ts(bytes(data)) if name.endswith("m2ts") else data)
    with pytest.raises(EncryptedVideoError):
        read_here(path, reader=reader)


@EVERY_READER
def test_what_looks_scrambled_between_the_heads_of_packets_is_not(tmp_path: Path, reader: ReaderName) -> None:
    """Packets of 192 bytes were looked at every 188: one camera's file in four or so was called encrypted."""
    path = write_video(tmp_path / "clear.ts", Recipe(constant_rate(20)))
    with av.open(str(path)) as container:
        track = container.streams.video[0].id
    filling = b"\x47\x1f\xff\x10" + (b"\x47" + track.to_bytes(2) + b"\x90") * 46  # a packet that pads the stream
    path = tmp_path / "clear.m2ts"
    path.write_bytes(as_m2ts((tmp_path / "clear.ts").read_bytes() + 40 * filling))
    assert read_here(path, reader=reader).missing == ()


def test_an_asf_file_with_a_licence(tmp_path: Path) -> None:
    path = write_video(tmp_path / "locked.wmv", Recipe(constant_rate(20), codec="wmv2"))
    assert read_here(path).video.num_frames == 20
    data, noise = path.read_bytes(), random.Random(1)
    # The header's last object, a kind of padding, becomes one of encryption; the pictures are noise.
    header = int.from_bytes(data[16:24], "little")
    content = ASF_GUID + (24).to_bytes(8, "little")
    grown = (header + len(content)).to_bytes(8, "little")
    count = (int.from_bytes(data[24:28], "little") + 1).to_bytes(4, "little")
    body = bytearray(data[header:])
    for place in range(0, len(body) - 64, 7):
        body[place + 64] ^= noise.randrange(1, 256)
    path.write_bytes(data[:16] + grown + count + data[28:header] + content + body)
    with pytest.raises(EncryptedVideoError):
        read_here(path)


def test_a_clear_beginning_is_read_and_the_rest_is_named(tmp_path: Path) -> None:
    """As streaming services do it: the start is clear, so that it can be shown before the key has come."""
    source = write_video(tmp_path / "source.mp4", Recipe(constant_rate(40), group=10))
    clear = in_fragments(source, tmp_path / "clear.mp4", {})
    locked = in_fragments(source, tmp_path / "locked.mp4", KEY)
    path = tmp_path / "both.mp4"
    path.write_bytes(with_clear_beginning(locked, clear))
    with reader_here(path, ReaderName.PYAV) as reader:
        frames = list(reader.read(range(40)))
        assert [number_in(frame.pixels) for frame in frames] == list(range(10))
        assert {missing.reason for missing in reader.missing} == {"it is encrypted"}
    with pytest.raises(UnreadableVideoError, match="can be decoded: it is encrypted"):
        read_here(path, SamplingOptions(start_seconds=0.5))


def in_fragments(source: Path, path: Path, options: dict[str, str]) -> bytes:
    with av.open(str(source)) as whole, av.open(str(path), "w", options={**FRAGMENTS, **options}) as container:
        stream = container.add_stream_from_template(whole.streams.video[0])
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return path.read_bytes()


def with_clear_beginning(locked: bytes, clear: bytes) -> bytes:
    """The first fragment as it was before it was encrypted, without what says how to decrypt it."""
    start = locked.index(b"mdat")
    end = locked.index(b"moof", start) - 4
    from_clear = clear.index(b"mdat")
    head = locked[:start]
    for name in (b"senc", b"saiz", b"saio"):
        head = head.replace(name, b"free")
    return head + clear[from_clear : from_clear + end - start] + locked[end:]
