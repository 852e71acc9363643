"""Subtitles inside a video file: found, read in the reading process, and timed from the first frame."""

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream

from sfvqa.errors import VideoError
from sfvqa.video import ReaderName, open_video
from sfvqa.video.subtitles import SubtitleLine

from ..here import reader_here

SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> there, you\n\n2\n00:00:03,000 --> 00:00:04,000\nTwo\nrows &c\n"
LINES = (SubtitleLine(1.0, 2.5, "Hello there, you"), SubtitleLine(3.0, 4.0, "Two rows &c"))


def write(
    path: Path,
    codecs: list[str],
    *,
    text: str = SRT,
    text_format: str = "srt",
    first_frame_seconds: int = 0,
    forced: int | None = None,
) -> Path:
    """Five seconds of grey, with `text` in a track of each codec; its times count from zero of the container."""
    text_file = path.parent / f"text.{text_format}"
    text_file.write_text(text, encoding="utf-8")
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=2)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        tracks: list[Any] = [container.add_stream(codec) for codec in codecs]
        header, packets = _read_packets(text_file)
        for place, track in enumerate(tracks):
            assert isinstance(track, SubtitleStream)
            track.codec_context.subtitle_header = header
            track.disposition = Disposition.forced if place == forced else Disposition(0)
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + 2 * first_frame_seconds, Fraction(1, 2)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for track in tracks:
            for packet, decoded in packets:
                encoded = track.codec_context.encode_subtitle(decoded)
                encoded.pts = encoded.dts = packet.pts
                encoded.duration, encoded.time_base, encoded.stream = packet.duration, packet.time_base, track
                container.mux(encoded)
    return path


def _read_packets(path: Path) -> tuple[bytes | None, list[tuple[Any, Any]]]:
    with av.open(str(path)) as source:
        stream = source.streams.subtitles[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        pairs = [(packet, stream.codec_context.decode2(packet)) for packet in packets]
        return stream.codec_context.subtitle_header, pairs


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mp4", "mov_text"), ("a.webm", "webvtt")]
)
def test_every_format_gives_the_lines(name: str, codec: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, [codec])
    with reader_here(path) as video:
        subtitles = video.subtitles()
    assert subtitles.lines == LINES
    assert subtitles.warnings == ()
    assert subtitles.source.startswith("track 1 (")


def ass(*events: str) -> str:
    """A SubStation Alpha file with an event a second."""
    head = (
        "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname, Fontsize\nStyle: Default,Arial,20\n"
    )
    columns = "\n[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    rows = [f"Dialogue: 0,0:00:0{n}.00,0:00:0{n}.90,Default,,0,0,0,,{event}" for n, event in enumerate(events)]
    return head + columns + "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    ("event", "texts"),
    [
        (r"{\pos(10,10)\p1}m 0 0 l 100 0 100 100 0 100{\p0}", []),
        (r"{\p1}m 0 0 l 9 9", []),
        (r"{\p4}m 0 0 l 9 9{\p0\fs20}A sign{\p1}m 1 1", ["A sign"]),
        (r"{a remark}{\k20}syl{\k30}lables, {\i1}yes{\i0}", ["syllables, yes"]),
        (r"one\Ntwo\nthree\hfour", ["one two three four"]),
        (r"{\pos(1,1)\pbo3}no drawing", ["no drawing"]),
    ],
)
def test_of_substation_alpha_only_text_is_text(event: str, texts: list[str], tmp_path: Path) -> None:
    """The outline of a drawn sign went into the prompt: "m 0 0 l 100 0 100 100 0 100"."""
    path = write(tmp_path / "a.mkv", ["ass"], text=ass("Hello", event), text_format="ass")
    with reader_here(path) as video:
        assert [line.text for line in video.subtitles().lines] == ["Hello", *texts]


WEBVTT = (
    "WEBVTT\n\n00:00.000 --> 00:01.000\n \nso<00:00.500><c> today</c>\n\n"
    "00:01.000 --> 00:02.000\nso today\nwe {look}\n\n00:02.000 --> 00:03.000\n<v Ann>we {look}\n"
)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "webvtt"), ("a.webm", "webvtt")])
def test_captions_are_read_as_from_a_file(name: str, codec: str, tmp_path: Path) -> None:
    """FFmpeg's decoder drops who speaks and breaks braces; and rows in one made each caption repeat the last."""
    path = write(tmp_path / name, [codec])
    data = WEBVTT.encode()
    (tmp_path / "a.vtt").write_bytes(data)
    _mux(path, tmp_path / "a.vtt")
    with reader_here(path) as video:
        assert [line.text for line in video.subtitles().lines] == ["so today", "we {look}", "Ann: we {look}"]


def _mux(path: Path, text_file: Path) -> None:
    """Write the packets of a text file as they are."""
    with av.open(str(text_file)) as source, av.open(str(path), "w") as container:
        video = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=2)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        track = container.add_stream_from_template(source.streams.subtitles[0])
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8), format="rgb24")))
        container.mux(video.encode())
        for packet in source.demux():
            if packet.size:
                packet.stream = track
                container.mux(packet)


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mp4", "mov_text"), ("a.webm", "webvtt")]
)
@pytest.mark.parametrize(
    ("text", "broken", "read", "says"),
    [
        ("Größe é", b"Gr\xc3\xb6\xc3\x9fe \xff\xff", "Größe \ufffd\ufffd", "is damaged in 2 places"),
        ("Gr__e", b"Gr\xf6\xdfe", "Größe", "was read as Latin-1"),
    ],
)
def test_a_broken_byte_loses_no_line(
    name: str, codec: str, text: str, broken: bytes, read: str, says: str, tmp_path: Path
) -> None:
    """FFmpeg refuses a packet that is no UTF-8, and with it went all lines that came after."""
    path = write(tmp_path / name, [codec], text=SRT.replace("<i>Hello</i> there, you", text))
    path.write_bytes(path.read_bytes().replace(text.encode(), broken))
    with reader_here(path) as video:
        subtitles = video.subtitles()
    assert [line.text for line in subtitles.lines] == [read, "Two rows &c"]
    (warning,) = subtitles.warnings
    assert says in warning


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    """A line must come out beside the frame it is shown with, wherever the container's clock starts."""
    with reader_here(write(tmp_path / "late.mkv", ["subrip"], first_frame_seconds=1)) as video:
        assert video.timestamps_seconds[0] == 0
        assert [line.start_seconds for line in video.subtitles().lines] == pytest.approx([0.0, 2.0])


def test_of_several_tracks_one_is_used_and_named(tmp_path: Path) -> None:
    """Forced ones hold only what is foreign."""
    with reader_here(write(tmp_path / "two.mkv", ["subrip", "ass"], forced=0)) as video:
        subtitles = video.subtitles()
    assert subtitles.source.startswith("track 2")
    assert "2 text tracks" in subtitles.warnings[0]


def test_a_file_without_a_track_says_so(tmp_path: Path) -> None:
    with reader_here(write(tmp_path / "none.mp4", [])) as video:
        subtitles = video.subtitles()
    assert subtitles.lines == ()
    assert "no text track" in subtitles.warnings[0]


def test_a_reader_that_knows_none_says_so(tmp_path: Path) -> None:
    with reader_here(write(tmp_path / "a.mp4", ["mov_text"]), ReaderName.OPENCV) as video:
        assert "reads no subtitles" in video.subtitles().warnings[0]


def test_frames_can_be_read_before_and_after(tmp_path: Path) -> None:
    """Also where reading was left early, which ends the process."""
    with open_video(write(tmp_path / "a.mkv", ["subrip"])) as video:
        with contextlib.closing(video.read([0, 5])) as frames:  # type: ignore[type-var]
            next(frames)
        assert video.subtitles().lines == LINES
        assert [frame.index for frame in video.read([1, 9])] == [1, 9]


def test_a_cut_file_gives_the_lines_that_are_there(tmp_path: Path) -> None:
    """No exception from the library comes through, wherever the file ends."""
    data = write(tmp_path / "whole.mkv", ["subrip"]).read_bytes()
    path = tmp_path / "cut.mkv"
    found = set()
    for num_lost in (10, 300, 600):
        path.write_bytes(data[:-num_lost])
        with contextlib.suppress(VideoError), reader_here(path) as video:
            found.add(video.subtitles().lines)
    assert found
    assert all(set(lines) <= set(LINES) for lines in found)
