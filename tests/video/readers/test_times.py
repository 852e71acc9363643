"""When frames are shown: odd clocks, odd rates and edit lists, each file made for it."""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from sfvqa.video import Clip, ReaderName, SamplingOptions

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import Recipe, constant_rate, number_in, write_video

WRAP_MILLISECONDS = 2**33 // 90  # a transport stream counts 90,000ths of a second with 33 bits
TWENTY = constant_rate(20)

RECIPES = {
    "a_frame_every_5_s.mp4": Recipe([5000 * place for place in range(8)], group=3),
    "a_frame_every_5_s.mkv": Recipe([5000 * place for place in range(8)], group=3),
    "a_frame_a_minute.webm": Recipe([60_000 * place for place in range(5)], codec="libvpx-vp9"),
    "480_fps.mp4": Recipe(range(60), group=20, ticks_per_second=480),
    "1000_fps.mp4": Recipe(range(60), group=20),
    "1000_fps.mkv": Recipe(range(60), group=20),
    "2000_fps.mp4": Recipe(range(60), group=20, ticks_per_second=2000),
    "29.97_fps.mp4": Recipe([1001 * place for place in range(60)], group=20, ticks_per_second=30_000),
    "hour_between.mp4": Recipe(TWENTY + [3_600_000 + time for time in TWENTY], group=10),
    "hour_between.mkv": Recipe(TWENTY + [3_600_000 + time for time in TWENTY], group=10),
    "hour_between.ts": Recipe(TWENTY + [3_600_000 + time for time in TWENTY], group=10),
    "clock_starts_over.ts": Recipe([WRAP_MILLISECONDS - 2000 + time for time in constant_rate(80)], group=20),
    "ten_hours_late.mp4": Recipe([36_000_000 + time for time in constant_rate(40)], group=10),
    "negative.mkv": Recipe([time - 400 for time in constant_rate(40)], group=10),
    "negative.nut": Recipe([time - 400 for time in constant_rate(40)], group=10),
}


def read_all(path: Path, reader: ReaderName) -> Clip:
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=reader)
    assert clip.missing == ()
    assert list(clip.indices) == list(range(clip.video.num_frames))
    return clip


def numbers_in(clip: Clip) -> list[int | None]:
    return [number_in(frame) for frame in clip.frames]


@pytest.mark.parametrize("name", RECIPES)
def test_every_frame_is_shown_at_its_time(video: WriteVideo, reader: ReaderName, name: str) -> None:
    recipe = RECIPES[name]
    clip = read_all(video(name, recipe), reader)
    assert numbers_in(clip) == list(range(len(recipe.times)))
    assert clip.timestamps_seconds == pytest.approx(recipe.seconds, abs=1e-6)
    assert clip.video.fps == pytest.approx((len(recipe.times) - 1) / recipe.seconds[-1])
    if reader is ReaderName.PYAV:
        assert clip.warnings == ()
        read_one = read_here(video(name, recipe), SamplingOptions(num_frames=3), reader=reader)
        assert numbers_in(read_one) == list(read_one.indices)


def test_matroska_rounds_the_times_of_high_rates_to_the_millisecond(video: WriteVideo, reader: ReaderName) -> None:
    clip = read_all(video("480_fps.mkv", Recipe(range(60), group=20, ticks_per_second=480)), reader)
    assert numbers_in(clip) == list(range(60))
    assert clip.timestamps_seconds == pytest.approx([place / 480 for place in range(60)], abs=0.0006)


def test_frames_before_time_zero_of_an_mp4_are_not_shown(video: WriteVideo, reader: ReaderName) -> None:
    """The writer cuts them off by an edit list."""
    clip = read_all(video("negative.mp4", Recipe([time - 400 for time in constant_rate(40)], group=7)), reader)
    assert numbers_in(clip) == list(range(10, 40))
    assert clip.timestamps_seconds == pytest.approx(constant_seconds(30))


def test_an_empty_edit_only_delays(video: WriteVideo, reader: ReaderName, tmp_path: Path) -> None:
    path = edited(video("plain.mp4", PLAIN), tmp_path / "delayed.mp4", [(1.5, None), (4.0, 0.0)])
    clip = read_all(path, reader)
    assert numbers_in(clip) == list(range(100))
    assert clip.timestamps_seconds == pytest.approx(constant_seconds(100))


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        pytest.param([(2.0, 1.4)], range(35, 85), id="cut at both ends, in mid-group"),
        pytest.param([(0.4, 0.4), (0.4, 1.6)], [*range(10, 20), *range(40, 50)], id="two pieces"),
        pytest.param([(0.4, 1.6), (0.4, 0.4)], [*range(40, 50), *range(10, 20)], id="later piece first"),
        pytest.param([(0.4, 0.4), (0.4, 0.4)], [*range(10, 20), *range(10, 20)], id="one piece twice"),
    ],
)
def test_an_edit_list_is_followed(
    video: WriteVideo, tmp_path: Path, edits: list[tuple[float, float | None]], shown: list[int]
) -> None:
    """OpenCV shows the same frames, but takes the file to be cut off, as it can only count how many it holds."""
    path = edited(video("plain.mp4", PLAIN), tmp_path / "edited.mp4", edits)
    clip = read_all(path, ReaderName.PYAV)
    assert numbers_in(clip) == list(shown)
    assert clip.timestamps_seconds == pytest.approx(constant_seconds(len(shown)))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_two_frames_with_one_time_are_both_there(video: WriteVideo, tmp_path: Path, suffix: str) -> None:
    def repeat(place: int, packet: "av.Packet[av.VideoStream]") -> None:
        if place == 33 and packet.pts is not None:
            packet.pts += packet.duration or 0

    path = remuxed(video("plain.mp4", PLAIN), tmp_path / f"repeated{suffix}", repeat)
    clip = read_all(path, ReaderName.PYAV)
    assert numbers_in(clip) == list(range(100))
    assert list(clip.timestamps_seconds) == sorted(set(clip.timestamps_seconds))
    assert "decoded in full" in clip.warnings[0]


PLAIN = Recipe(constant_rate(100), group=25, options={"x264-params": "bframes=0:scenecut=0"})


@pytest.mark.parametrize(
    ("codec", "options"),
    [("mpeg2video", {"bf": "2", "b": "4M"}), ("libx265", {"x265-params": "log-level=none:bframes=3:open-gop=1"})],
    ids=["mpeg2", "hevc"],
)
def test_a_piece_that_begins_with_an_open_group_is_not_decoded_in_full(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    """Cut without decoding: what was shown before its first key frame has no time of its own left."""
    whole = write_video(tmp_path / "whole.mkv", Recipe(constant_rate(60), codec, group=15, options=options))
    with av.open(str(whole)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        start = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
        zero = packets[start].pts or 0
        left_out = sum((packet.pts or 0) < zero for packet in packets[start:])
        assert left_out, "these frames cannot be decoded"
        path = tmp_path / "piece.mkv"
        with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            for packet in packets[start:]:
                packet.stream, packet.dts = stream, None
                packet.pts = max((packet.pts or 0) - zero, 0)
                target.mux(packet)
    clip = read_all(path, ReaderName.PYAV)
    first = round(zero / 40)
    assert numbers_in(clip) == list(range(first, 60))
    assert clip.warnings == (f"{left_out} frames before the first key frame cannot be decoded.",)


def constant_seconds(frames: int) -> list[float]:
    return [place / 25 for place in range(frames)]


def remuxed(source: Path, path: Path, change: "Callable[[int, av.Packet[av.VideoStream]], None]") -> Path:
    """Copy the packets of a file into another, each changed."""
    with av.open(str(source)) as reading, av.open(str(path), "w") as writing:
        stream = writing.add_stream_from_template(reading.streams.video[0])
        for place, packet in enumerate(packet for packet in reading.demux(video=0) if packet.size):
            packet.stream = stream
            change(place, packet)
            writing.mux(packet)
    return path


def edited(source: Path, path: Path, edits: list[tuple[float, float | None]]) -> Path:
    """Copy an mp4 and replace its edit list by (seconds shown, seconds into the media, or None to show nothing)."""
    data = source.read_bytes()
    moov = next(box for box in boxes(data, 0, len(data)) if box[0] == b"moov")
    inside = {name: (start, end) for name, start, end in boxes(data, moov[1] + 8, moov[2])}
    trak = inside[b"trak"]
    in_trak = {name: (start, end) for name, start, end in boxes(data, trak[0] + 8, trak[1])}
    mdhd = next(start for name, start, _ in boxes(data, in_trak[b"mdia"][0] + 8, trak[1]) if name == b"mdhd")
    # ISO/IEC 14496-12: versions 0 of mvhd, mdhd and elst.
    (movie_scale,) = struct.unpack_from(">I", data, inside[b"mvhd"][0] + 20)
    (media_scale,) = struct.unpack_from(">I", data, mdhd + 20)
    entries = b"".join(
        struct.pack(">IiI", round(shown * movie_scale), -1 if at is None else round(at * media_scale), 1 << 16)
        for shown, at in edits
    )
    elst = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(edits)) + entries
    start, end = in_trak[b"edts"]
    changed = bytearray(data[:start] + struct.pack(">I4s", 8 + len(elst), b"edts") + elst + data[end:])
    for outer_start, outer_end in (moov[1:], trak):  # moov comes last, so nothing else moves
        struct.pack_into(">I", changed, outer_start, outer_end - outer_start + len(changed) - len(data))
    path.write_bytes(changed)
    return path


def boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of the boxes of an mp4 that lie side by side from `start` to `end`."""
    while start < end:
        size, name = struct.unpack_from(">I4s", data, start)
        yield name, start, start + size
        start += size


def test_a_rate_of_thirty_is_thirty_also_where_times_are_rounded_to_milliseconds(tmp_path: Path) -> None:
    """The reference takes every round(fps / 4)-th frame: 8 of 30, 7 of 29.99."""
    import av

    path = tmp_path / "thirty.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    with reader_here(path) as opened:
        assert opened.timestamps_seconds[-1] != 29 / 30
        assert opened.info.fps == 30
