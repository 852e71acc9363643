"""Of several video tracks the one that players show is read, and which one that was is said."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType

import av
import pytest
from av.stream import Disposition
from av.video.stream import VideoStream

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import ReaderName
from sfvqa.video.readers.tracks import open_container, packets_of

from ..here import read_here, reader_here
from ..patched import add_box
from ..videos import number_in, numbered_picture

DEFAULT = Disposition.default
NO_MARK = Disposition(0)


@dataclass(frozen=True)
class Track:
    """A track whose frames all show `number`."""

    number: int
    codec: str = "libx264"
    num_frames: int = 10
    scale: int = 1
    marks: Disposition = NO_MARK


def write_tracks(path: Path, tracks: Sequence[Track], metadata: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Each track has these words attached."""
    with av.open(str(path), "w") as container:
        streams: list[VideoStream] = []
        for track in tracks:
            stream = container.add_stream(track.codec, rate=25)
            assert isinstance(stream, VideoStream)
            stream.width, stream.height = 144 * track.scale, 96 * track.scale
            stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(track.codec, "yuv420p")
            stream.disposition = track.marks
            stream.metadata.update(metadata)
            streams.append(stream)
        packets = [packet for stream, track in zip(streams, tracks, strict=True) for packet in encoded(stream, track)]
        for packet in sorted(packets, key=lambda packet: (packet.dts or 0) * packet.time_base):
            container.mux(packet)
    return path


def encoded(stream: VideoStream, track: Track) -> "list[av.Packet[VideoStream]]":
    packets = []
    for place in range(track.num_frames):
        frame = av.VideoFrame.from_ndarray(numbered_picture(track.number), format="rgb24")
        frame = frame.reformat(stream.width, stream.height, stream.pix_fmt)
        frame.pts, frame.time_base = place, Fraction(1, 25)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


STILL = Track(9, "mjpeg", 1)
CASES = {
    "the default of two.mp4": [Track(1), Track(2, marks=DEFAULT)],
    "the default before the largest.mp4": [Track(1, scale=2), Track(2, marks=DEFAULT)],
    "the default before the largest.mkv": [Track(1, scale=2), Track(2, marks=DEFAULT)],
    "what moves before a still.mp4": [STILL, Track(2)],
    "what moves before a still.mkv": [STILL, Track(2)],
    "what moves before a still.ts": [Track(1, "mpeg2video", 1, scale=2), Track(2, "mpeg2video")],
    "what moves before a still marked as default.mkv": [Track(9, "mjpeg", 1, marks=DEFAULT), Track(2)],
    "a cover is no choice.mp4": [Track(9, "png", 1, marks=Disposition.attached_pic), Track(2)],
    "the largest.ts": [Track(1, "mpeg2video"), Track(2, "mpeg2video", scale=2)],
    "the largest of two defaults.mkv": [Track(1, marks=DEFAULT), Track(2, scale=2, marks=DEFAULT)],
    "the largest.avi": [Track(1, "mpeg4"), Track(2, "mpeg4", scale=2)],
    "the largest.nut": [Track(1), Track(2, scale=2)],
    "the first of equals.ts": [Track(2, "mpeg2video"), Track(1, "mpeg2video")],
    "the first of equals.mkv": [Track(2), Track(1)],
    "not for those who hear badly.mkv": [Track(1, scale=2, marks=Disposition.hearing_impaired), Track(2)],
}


@pytest.mark.parametrize("name", CASES)
def test_the_track_that_players_show_is_read(tmp_path: Path, name: str) -> None:
    """The first video track was read whatever it was: a still before the video, one marked as disabled."""
    tracks = CASES[name]
    clip = read_here(write_tracks(tmp_path / name, tracks))
    assert {number_in(frame) for frame in clip.frames} == {2}
    assert clip.video.num_frames == 10
    notices = [warning for warning in clip.warnings if "video tracks" in warning]
    is_choice = "a cover" not in name
    assert len(notices) == is_choice
    place = [track.number for track in tracks].index(2)
    for notice in notices:
        assert f"{len(tracks)} video tracks: track {place} (" in notice
        assert f"not track {1 - place} (" in notice


def test_the_notice_says_what_each_track_is(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "two.mp4", [STILL, Track(2, scale=2, marks=DEFAULT)])
    with reader_here(path) as reader:
        assert reader.warnings == (
            "The file has 2 video tracks: track 1 (h264, 288 × 192, marked as default) is used, "
            "not track 0 (mjpeg, 144 × 96).",
        )


def test_the_choice_holds_for_all_threads(tmp_path: Path) -> None:
    """Each thread opens the file anew."""
    path = write_tracks(tmp_path / "long.mkv", [Track(1, scale=2), Track(2, num_frames=40, marks=DEFAULT)])
    clip = read_here(path, reader=ReaderName.PYAV)
    assert {number_in(frame) for frame in clip.frames} == {2}


def test_of_stills_alone_the_largest_is_read(tmp_path: Path) -> None:
    path = write_tracks(tmp_path / "stills.mkv", [STILL, Track(2, "mjpeg", 1, scale=2)])
    assert number_in(read_here(path).frames[0]) == 2


def test_covers_alone_are_no_video(tmp_path: Path) -> None:
    """OpenCV stepped in and showed the cover."""
    path = tmp_path / "song.mp4"
    write_tracks(path, [Track(9, "png", 1, marks=Disposition.attached_pic)])
    for reader in (ReaderName.AUTO, ReaderName.PYAV, ReaderName.OPENCV):
        with pytest.raises(UnreadableVideoError, match="no moving picture"):
            read_here(path, reader=reader)


def test_opencv_which_cannot_choose_shows_no_other_track(tmp_path: Path) -> None:
    second = write_tracks(tmp_path / "second.mp4", [Track(1), Track(2, marks=DEFAULT)])
    with pytest.raises(UnreadableVideoError, match="the first video track"):
        read_here(second, reader=ReaderName.OPENCV)
    first = write_tracks(tmp_path / "first.mp4", [Track(2, marks=DEFAULT), Track(1)])
    assert number_in(read_here(first, reader=ReaderName.OPENCV).frames[0]) == 2


@pytest.mark.parametrize(
    ("profile", "compatibility", "is_said"), [(5, 0, True), (10, 0, True), (10, 1, False), (8, 1, False), (7, 0, False)]
)
def test_colours_of_dolby_vision_that_are_not_decoded_are_said(
    tmp_path: Path, reader: ReaderName, profile: int, compatibility: int, is_said: bool
) -> None:
    """Some have no picture beneath in usual colours: what is shown is green and purple."""
    path = write_tracks(tmp_path / "dolby.mp4", [Track(2)])
    level, has_metadata, has_base = 1, 1, 1
    bits = profile << 9 | level << 3 | has_metadata << 2 | has_base
    content = bytes([1, 0]) + bits.to_bytes(2) + bytes([compatibility << 4]) + bytes(19)
    add_box(path, "avc1", "dvvC" if profile > 7 else "dvcC", content)
    with reader_here(path, reader) as opened:
        assert any(f"Dolby Vision profile {profile}," in warning for warning in opened.warnings) == is_said


@pytest.mark.parametrize("title", ["Frame Cropping: 8/8/8/8", "a\n      Frame Cropping: 8/8/8/8", "Stream #0:7[ (:"])
@pytest.mark.parametrize("key", ["title", "Frame Cropping", "Frame Cropping: 8/8/8/8"])
def test_what_a_title_says_crops_nothing(tmp_path: Path, title: str, key: str) -> None:
    path = write_tracks(tmp_path / "titled.mkv", [Track(2)], {key: title})
    with reader_here(path, ReaderName.PYAV) as opened:
        assert (opened.info.width, opened.info.height, opened.warnings) == (144, 96, ())


def test_a_stream_that_turns_up_on_the_way_is_no_matter(tmp_path: Path) -> None:
    """At the end PyAV looks for its own of every stream that FFmpeg has by then: an internal error."""
    path = write_tracks(tmp_path / "late.mkv", [Track(2)])

    class Container:
        def demux(self, _: VideoStream) -> "Iterator[av.Packet[VideoStream]]":
            with open_container(path) as container:
                yield from container.demux(container.streams.video[0])
            raise IndexError("list index out of range")

    with open_container(path) as container:
        packets = list(packets_of(Container(), container.streams.video[0]))  # type: ignore[arg-type]
    assert [bool(packet.size) for packet in packets] == [True] * 10 + [False]
