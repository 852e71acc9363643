"""Damage in a transport stream is where packets are missing, not where FFmpeg says; joined segments have none."""

from pathlib import Path

import av
import pytest

from sfvqa.video import Clip, ReaderName, SamplingOptions

from ..conftest import WriteVideo
from ..here import read_here
from ..videos import Recipe, constant_rate, number_in, write_video

PACKET = 188
GROUP = 12
WHOLE = Recipe(constant_rate(60), group=GROUP)


def segments(whole: Path, folder: Path) -> list[bytes]:
    """One file a group, with times that go on, as they are for streaming: counters begin anew in each."""
    contents = []
    with av.open(str(whole)) as source:
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for number in range(0, len(packets), GROUP):
            path = folder / f"{number}.ts"
            with av.open(str(path), "w") as target:
                stream = target.add_stream_from_template(source.streams.video[0])
                for packet in packets[number : number + GROUP]:
                    packet.stream = stream
                    target.mux(packet)
            contents.append(path.read_bytes())
    return contents


def read_all(path: Path) -> Clip:
    return read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)


def assert_right(clip: Clip) -> None:
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices)


def assert_second_group_suffers_alone(clip: Clip) -> None:
    assert [number_in(frame) for frame in clip.frames] == [round(time * 25) for time in clip.timestamps_seconds]
    lost = set(range(60)) - {number_in(frame) for frame in clip.frames}
    assert lost
    assert lost < set(range(GROUP, 2 * GROUP))


def positions(path: Path) -> list[int]:
    """Where the data of each frame begins, in decoding order."""
    with av.open(str(path)) as container:
        return [packet.pos or 0 for packet in container.demux(video=0) if packet.size]


def lose(path: Path, begin: int, num_packets: int = 1) -> None:
    """Leave out packets, as a bad reception does."""
    content = path.read_bytes()
    path.write_bytes(content[:begin] + content[begin + num_packets * PACKET :])


def test_whole_segments_joined_lose_nothing(video: WriteVideo, tmp_path: Path) -> None:
    """Two or three frames at every join were called damaged, for what the counters of another group do."""
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(segments(video("segments.ts", WHOLE), tmp_path)))
    clip = read_all(path)
    assert_right(clip)
    assert (len(clip.indices), clip.missing, clip.warnings) == (60, (), ())


def test_what_lies_between_segments_is_passed_over(video: WriteVideo, tmp_path: Path) -> None:
    path = tmp_path / "tagged.ts"
    path.write_bytes(b"a tag of 21 bytes ...".join(segments(video("segments.ts", WHOLE), tmp_path)))
    clip = read_all(path)
    assert_right(clip)
    assert (len(clip.indices), clip.missing, clip.warnings) == (60, (), ())


def test_a_segment_that_is_cut_costs_its_last_frames_alone(video: WriteVideo, tmp_path: Path) -> None:
    pieces = segments(video("segments.ts", WHOLE), tmp_path)
    pieces[1] = pieces[1][: len(pieces[1]) - 5 * PACKET - 61]
    path = tmp_path / "cut_segment.ts"
    path.write_bytes(b"".join(pieces))
    assert_second_group_suffers_alone(read_all(path))


@pytest.mark.parametrize("packet", [1, 3])
@pytest.mark.parametrize("place", [17, 24, 30])
def test_a_lost_packet_costs_its_own_group(video: WriteVideo, tmp_path: Path, place: int, packet: int) -> None:
    """A key frame's loss was blamed on the group before it, whose last frames were left out; reasons named that."""
    path = tmp_path / "lost.ts"
    path.write_bytes(video("segments.ts", WHOLE).read_bytes())
    lose(path, positions(path)[place] + packet * PACKET)
    clip = read_all(path)
    assert_right(clip)
    number = place // GROUP
    group = range(GROUP * number, GROUP * (number + 1))
    lost = [frame.index for frame in clip.missing]
    assert lost
    assert set(lost) <= set(group)
    assert lost[-1] == group[-1]
    if place % GROUP == 0:
        assert lost == list(group)
    with_times = [frame.reason for frame in clip.missing if "may depend on" in frame.reason]
    for reason in with_times:
        minutes, seconds = reason.split(" at ")[1].split(" ")[0].split(":")
        assert GROUP * number <= round((60 * int(minutes) + float(seconds)) * 25) < GROUP * (number + 1)


def test_frames_that_are_wholly_lost_take_with_them_what_follows_in_their_group(
    video: WriteVideo, tmp_path: Path
) -> None:
    """The one after a gap is whole, but may show a frame that is not there."""
    path = tmp_path / "gap.ts"
    path.write_bytes(video("segments.ts", WHOLE).read_bytes())
    found = positions(path)
    num_packets = (found[29] - found[28]) // PACKET
    assert num_packets % 16  # else the counters would fit
    lose(path, found[28], num_packets)
    clip = read_all(path)
    numbers = [number_in(frame) for frame in clip.frames]
    assert numbers == [round(time * 25) for time in clip.timestamps_seconds]
    assert set(range(60)) - set(range(24, 36)) <= set(numbers)
    assert len(set(numbers) & set(range(24, 36))) < 8


def test_other_packet_sizes_are_joined_as_well(tmp_path: Path) -> None:
    """Cameras write packets of 192 bytes, each after its time of arrival (M2TS)."""
    whole = write_video(tmp_path / "whole.ts", WHOLE)
    pieces = []
    for piece in segments(whole, tmp_path):
        packets = (piece[at : at + PACKET] for at in range(0, len(piece), PACKET))
        pieces.append(b"".join(bytes(4) + packet for packet in packets))
    path = tmp_path / "joined.m2ts"
    path.write_bytes(b"".join(pieces))
    clip = read_all(path)
    assert_right(clip)
    assert (len(clip.indices), clip.missing) == (60, ())


def filled_up(segment: bytes) -> bytes:
    """The same, but that zeros behind the picture, where H.264 allows them, fill up its last packet."""
    last = segment[-PACKET:]
    assert last[3] & 0x30 == 0x30  # padded in front
    payload = last[5 + last[4] :]
    return segment[:-PACKET] + last[:3] + bytes([last[3] & ~0x20]) + payload.ljust(PACKET - 4, b"\0")


def test_segments_whose_last_packet_is_full_lose_nothing(video: WriteVideo, tmp_path: Path) -> None:
    """One picture in 184 ends exactly with a packet: the frame before such a joint was left out as damaged."""
    path = tmp_path / "full.ts"
    path.write_bytes(b"".join(map(filled_up, segments(video("segments.ts", WHOLE), tmp_path))))
    clip = read_all(path)
    assert_right(clip)
    assert (len(clip.indices), clip.missing) == (60, ())


@pytest.mark.parametrize("num_lost", [1, 2, 3, 5, 9])
def test_a_segment_that_is_cut_between_packets_shows_nothing_wrong(
    video: WriteVideo, tmp_path: Path, num_lost: int
) -> None:
    pieces = segments(video("segments.ts", WHOLE), tmp_path)
    pieces[1] = pieces[1][: -num_lost * PACKET]
    path = tmp_path / "cut_segment.ts"
    path.write_bytes(b"".join(pieces))
    assert_second_group_suffers_alone(read_all(path))
