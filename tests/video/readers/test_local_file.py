"""Only the file itself is opened: what names other files or hosts is refused twice over; odd names are names."""

import codecs
import gzip
import socket
import struct
from collections.abc import Callable
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import ReaderName, SamplingOptions
from sfvqa.video.readers import local_file
from sfvqa.video.readers.local_file import check_local_file
from tests.windows import needs_links, needs_names

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import Recipe, constant_rate, number_in, numbered_picture

READERS = (ReaderName.AUTO, ReaderName.PYAV, ReaderName.OPENCV)
EVERY_READER = pytest.mark.parametrize("reader", READERS, ids=str)
SECRET = Recipe(constant_rate(5))

NAMED = "names other files or hosts"
TEXT = "it is text"
LISTS = {
    "hls": ("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{secret}\n#EXT-X-ENDLIST\n", NAMED),
    "m3u without a header": ("{secret}\n", TEXT),
    "ffconcat": ("ffconcat version 1.0\nfile '{secret}'\n", NAMED),
    "concat": ("file '{secret}'\n", NAMED),
    "sdp": (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 96\r\n", NAMED),
    "dash": (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
        'mimeType="video/mp4"><Representation id="1"><BaseURL>{secret}</BaseURL></Representation></AdaptationSet>'
        "</Period></MPD>\n", NAMED),
    "asx": ('<asx version="3.0"><entry><ref href="{secret}"/></entry></asx>\n', NAMED),
    "asx of the older kind": ("[Reference]\nRef1={secret}\n", NAMED),
    "pls": ("[playlist]\nFile1={secret}\nNumberOfEntries=1\n", NAMED),
    "xspf": (
        '<?xml version="1.0" encoding="UTF-8"?>\n<playlist version="1" xmlns="http://xspf.org/ns/0/"><trackList><track>'
        "<location>file://{secret}</location></track></trackList></playlist>\n", NAMED),
    "imf": (
        '<?xml version="1.0"?>\n<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
        "<Id>urn:uuid:0</Id></CompositionPlaylist>\n", NAMED),
    "imf asset map": (
        '<?xml version="1.0"?>\n<AssetMap xmlns="http://www.smpte-ra.org/schemas/429-9/2007/AM"><Path>{secret}</Path>'
        "</AssetMap>\n", NAMED),
    "smil": ('<smil><body><video src="{secret}"/></body></smil>\n', NAMED),
    "real metafile": ("file://{secret}\n", TEXT),
    "avisynth": ('DirectShowSource("{secret}")\n', TEXT),
    "quicktime link": ('<?xml version="1.0"?><?quicktime type="video/quicktime"?><embed src="{secret}"/>\n', TEXT),
}  # fmt: skip
"""Every text that some player follows to another file, and the sentence it is refused with."""

DISGUISES: dict[str, Callable[[str], bytes]] = {
    "plain": lambda text: text.encode(),
    "after white space": lambda text: b"\n\n \t\r\n" + text.encode(),
    "utf-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16, the other end first": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "after 5 kB of remarks": lambda text: b"# a remark\n" * 500 + text.encode(),
    "latin-1": lambda text: "# Müller\n".encode("latin-1") + text.encode(),
}
BINARY_DISGUISES: dict[str, Callable[[str], bytes]] = {
    "gzip": lambda text: gzip.compress(text.encode()),
    "utf-16 without a mark": lambda text: text.encode("utf-16-le"),
    "behind a zero": lambda text: b"\0" + text.encode(),
    "before a zero": lambda text: text.encode() + b"\0" * 100,
}


@pytest.fixture
def secret(video: WriteVideo, tmp_path: Path) -> Path:
    """A readable video beside the list, so that relative names would find it too."""
    path = tmp_path / "secret.mp4"
    path.write_bytes(video("secret.mp4", SECRET).read_bytes())
    return path


def write_list(secret: Path, kind: str, disguise: Callable[[str], bytes], suffix: str, *, relative: bool) -> Path:
    path = secret.with_name(f"list{suffix}")
    path.write_bytes(disguise(LISTS[kind][0].replace("{secret}", secret.name if relative else str(secret))))
    return path


def assert_refused(path: Path, reader: ReaderName, sentence: str = "cannot|hold|No frame|no frame|moving") -> None:
    with pytest.raises(UnreadableVideoError, match=sentence) as raised:
        read_here(path, reader=reader)
    assert raised.value.remedy


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_is_refused(secret: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    for suffix, reader in product((".mp4", ".m3u8"), READERS):
        assert_refused(write_list(secret, kind, DISGUISES["plain"], suffix, relative=False), reader, LISTS[kind][1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("disguise", [name for name in DISGUISES if name != "plain"])
def test_a_list_in_disguise_is_refused_as_text(secret: Path, disguise: str) -> None:
    """At the door, before any reader is chosen."""
    for kind in LISTS:
        path = write_list(secret, kind, DISGUISES[disguise], ".mp4", relative=True)
        with pytest.raises(UnreadableVideoError, match=f"{NAMED}|{TEXT}"):
            check_local_file(path)


@EVERY_READER
@pytest.mark.parametrize("disguise", BINARY_DISGUISES)
def test_a_list_that_does_not_look_like_text_is_not_followed(secret: Path, reader: ReaderName, disguise: str) -> None:
    for kind in LISTS:
        assert_refused(write_list(secret, kind, BINARY_DISGUISES[disguise], ".mp4", relative=True), reader)


@EVERY_READER
@pytest.mark.parametrize("suffix", [".m3u8", ".sdp"])
def test_the_second_lock(secret: Path, reader: ReaderName, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg opens neither the format nor the protocol, whatever the head of the file looked like."""
    monkeypatch.setattr(local_file, "_text_in", lambda head: None)  # noqa: ARG005
    for kind in LISTS:
        assert_refused(write_list(secret, kind, DISGUISES["plain"], suffix, relative=True), reader, "cannot")


@pytest.mark.parametrize("kind", ["hls", "ffconcat"])
def test_the_secret_could_be_read(secret: Path, kind: str) -> None:
    """Without the locks the lists work: the tests above would notice."""
    path = write_list(secret, kind, DISGUISES["plain"], ".m3u8", relative=True)
    options = {"allowed_extensions": "ALL", "extension_picky": "0"} if kind == "hls" else {"safe": "0"}
    with av.open(str(path), options={"protocol_whitelist": "file", **options}) as container:
        first = next(container.decode(video=0))
    assert number_in(first.to_ndarray(format="rgb24").astype(np.uint8)) == 0


def test_no_format_that_is_let_in_takes_names_of_other_files() -> None:
    """The demuxers of FFmpeg that open other files or hosts by themselves (io_open, avio_open, a graph, a device)."""
    openers = (
        "applehttp,hls,hds,concat,dash,webm_dash_manifest,imf,image2,image2pipe,sdp,rtsp,rtp,sap,vobsub,mlv,lavfi,"
        "avisynth,vapoursynth,dvdvideo,bluray,ffmetadata,smoothstreaming,tty,txd,alsa,fbdev,v4l2,x11grab,kmsgrab,oss"
    )
    assert not set(local_file.FORMAT_WHITELIST.split(",")) & set(openers.split(","))


@EVERY_READER
def test_a_reference_in_a_movie_is_not_followed(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    """A mov whose pictures lie in another file, which FFmpeg opens only when it is told to."""
    whole = video("moving.mov", Recipe(constant_rate(12))).read_bytes()
    other = tmp_path / "other.mov"
    other.write_bytes(whole)
    movie = tmp_path / "movie.mov"
    start = whole.index(b"mdat") + 4
    stop = whole.index(b"moov") - 4
    movie.write_bytes(with_reference(whole[:start] + bytes(stop - start) + whole[stop:], other))
    told = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(movie), options=told) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in container.decode(video=0)]
    assert [number_in(frame) for frame in frames] == list(range(12)), "the reference leads nowhere"
    assert_refused(movie, reader)


def with_reference(movie: bytes, other: Path) -> bytes:
    """The movie with its data reference turned into an alias record for `other` (the offsets stay what they were)."""
    name = str(other).encode()
    name += b"\0" * (len(name) % 2)
    record = bytes(10) + bytes([0]) + bytes(27 + 12) + bytes([0]) + bytes(63 + 16) + struct.pack(">hh", -1, -1)
    record += bytes(16) + struct.pack(">hH", 2, len(name)) + name + struct.pack(">hH", -1, 0)
    entry = struct.pack(">I", 12 + len(record)) + b"alis" + bytes(4) + record
    box = struct.pack(">I", 16 + len(entry)) + b"dref" + struct.pack(">II", 0, 1) + entry
    at = movie.rindex(b"dref") - 4
    old = int.from_bytes(movie[at : at + 4])
    grown = bytearray(movie[:at] + box + movie[at + old :])
    for parent in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        place = grown.rindex(parent, 0, at) - 4
        size = int.from_bytes(grown[place : place + 4])
        grown[place : place + 4] = (size + len(box) - old).to_bytes(4)
    return bytes(grown)


@EVERY_READER
def test_a_reference_movie_without_pictures_is_refused(secret: Path, reader: ReaderName) -> None:
    """QuickTime's own playlist: a movie that holds nothing but the name of another."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", 8 + len(content)) + kind + content

    name = str(secret).encode() + b"\0"
    reference = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(name)) + name)
    path = secret.with_name("reference.mov")
    path.write_bytes(box(b"ftyp", b"qt  " + bytes(4)) + box(b"moov", box(b"rmra", box(b"rmda", reference))))
    assert_refused(path, reader)


NAMES = [
    "-x.mp4", "concat:a.mp4", "pipe:0", "data:abc", "file:a.mp4", "http:", "a|b.mp4", "%d", "%03d.mp4", "what?.mp4",
    "a*.mp4", "[1].mp4", "a\nb.mp4", " .mp4", "clip.m3u8", "clip.png", "clip.txt", "x.ffconcat", "ü.mp4",
]  # fmt: skip


@needs_names
@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_is_only_a_name(
    video: WriteVideo, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(video("odd.mp4", SECRET).read_bytes())
    monkeypatch.chdir(tmp_path)
    for path, reader in product((Path(name), tmp_path / name), (ReaderName.PYAV, ReaderName.OPENCV)):
        assert [number_in(frame) for frame in read_here(path, reader=reader).frames] == list(range(5))


@pytest.mark.parametrize("name", ["%03d.png", "a*.png", "a{1}.png", "a?.png"])
@needs_names
def test_a_picture_named_like_a_pattern_is_itself(tmp_path: Path, name: str) -> None:
    for number, neighbour in enumerate(["001.png", "002.png", "ab.png", "a1.png", name]):
        Image.fromarray(numbered_picture(number)).save(tmp_path / neighbour)
    clip = read_here(tmp_path / name)
    assert [number_in(frame) for frame in clip.frames] == [4]


@EVERY_READER
@needs_links
def test_a_link_to_a_file_is_followed_and_a_loop_is_not(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    (tmp_path / "link.mp4").symlink_to(video("odd.mp4", SECRET))
    assert read_here(tmp_path / "link.mp4", SamplingOptions(num_frames=1), reader=reader).indices == (2,)
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    assert_refused(tmp_path / "loop.mp4", reader, "leads back to itself")


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no named sockets")
def test_a_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(UnreadableVideoError, match="pipe or device"):
            check_local_file(tmp_path / "s")


@EVERY_READER
def test_raw_video_that_looks_like_text_is_a_video(tmp_path: Path, reader: ReaderName) -> None:
    """Flat grey in a raw file is the letter d, kilobytes of it."""
    path = tmp_path / "grey.y4m"
    path.write_bytes(b"YUV4MPEG2 W128 H128 F25:1 Ip A1:1 Cmono\n" + (b"FRAME\n" + b"d" * 128 * 128) * 3)
    with reader_here(path, reader) as opened:
        assert (opened.info.num_frames, opened.info.width) == (3, 128)
