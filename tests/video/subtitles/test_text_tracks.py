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
from sfvqa.video import ReaderName, ReadOptions, open_video
from sfvqa.video.subtitles import SubtitleLine

SRT = "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> there, you\n\n2\n00:00:03,000 --> 00:00:04,000\nTwo\nrows &c\n"
LINES = (SubtitleLine(1.0, 2.5, "Hello there, you"), SubtitleLine(3.0, 4.0, "Two rows &c"))


def write(path: Path, codecs: list[str], *, first_frame_seconds: int = 0, forced: int | None = None) -> Path:
    """Five seconds of grey, with SRT in a track of each codec; times of the text count from zero of the container."""
    text = path.parent / "text.srt"
    text.write_text(SRT, encoding="utf-8")
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx" if path.suffix == ".webm" else "mpeg4", rate=2)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        tracks: list[Any] = [container.add_stream(codec) for codec in codecs]
        header, packets = _read_srt(text)
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


def _read_srt(path: Path) -> tuple[bytes | None, list[tuple[Any, Any]]]:
    with av.open(str(path)) as source:
        stream = source.streams.subtitles[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        pairs = [(packet, stream.codec_context.decode2(packet)) for packet in packets]
        return stream.codec_context.subtitle_header, pairs


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mp4", "mov_text"), ("a.webm", "webvtt")]
)
@pytest.mark.parametrize("isolated", [True, False])
def test_every_format_gives_the_lines(name: str, codec: str, isolated: bool, tmp_path: Path) -> None:
    path = write(tmp_path / name, [codec])
    with open_video(path, ReadOptions(isolated=isolated)) as video:
        subtitles = video.subtitles()
    assert subtitles.lines == LINES
    assert subtitles.warnings == ()
    assert subtitles.source.startswith("track 1 (")


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    """A line must come out beside the frame it is shown with, wherever the container's clock starts."""
    with open_video(write(tmp_path / "late.mkv", ["subrip"], first_frame_seconds=1)) as video:
        assert video.timestamps_seconds[0] == 0
        assert [line.start_seconds for line in video.subtitles().lines] == pytest.approx([0.0, 2.0])


def test_of_several_tracks_one_is_used_and_named(tmp_path: Path) -> None:
    """Forced ones hold only what is foreign."""
    with open_video(write(tmp_path / "two.mkv", ["subrip", "ass"], forced=0)) as video:
        subtitles = video.subtitles()
    assert subtitles.source.startswith("track 2")
    assert "2 text tracks" in subtitles.warnings[0]


def test_a_file_without_a_track_says_so(tmp_path: Path) -> None:
    with open_video(write(tmp_path / "none.mp4", [])) as video:
        subtitles = video.subtitles()
    assert subtitles.lines == ()
    assert "no text track" in subtitles.warnings[0]


def test_a_reader_that_knows_none_says_so(tmp_path: Path) -> None:
    with open_video(write(tmp_path / "a.mp4", ["mov_text"]), ReadOptions(ReaderName.OPENCV)) as video:
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
        with contextlib.suppress(VideoError), open_video(path) as video:
            found.add(video.subtitles().lines)
    assert found
    assert all(set(lines) <= set(LINES) for lines in found)
