"""Cut and damaged files: what can be vouched for is read, what is missing is counted, no frame is silently wrong."""

import random
import re
import threading
import time
from pathlib import Path

import pytest

from sfvqa.errors import UnreadableVideoError
from sfvqa.video import Clip, ReaderName, ReadOptions, SamplingOptions
from sfvqa.video.readers import VideoReader, open_here

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import Recipe, constant_rate, number_in, write_video

INDEX_FIRST = {"movflags": "faststart"}
OPEN_GROUPS = {"x264-params": "open-gop=1:scenecut=0"}
FRAMES = 150
RECIPES = {
    "cut.mp4": Recipe(constant_rate(FRAMES), group=30, container_options=INDEX_FIRST),
    "cut_one_group.mp4": Recipe(constant_rate(FRAMES), group=250, container_options=INDEX_FIRST),
    "cut_open_groups.mp4": Recipe(
        constant_rate(FRAMES), group=30, options=OPEN_GROUPS, container_options=INDEX_FIRST
    ),
    "cut_with_sound.mp4": Recipe(constant_rate(FRAMES), group=30, with_sound=True, container_options=INDEX_FIRST),
    "cut.mkv": Recipe(constant_rate(FRAMES), group=30),
    "cut.webm": Recipe(constant_rate(FRAMES), group=30, codec="libvpx-vp9"),
    "cut.avi": Recipe(constant_rate(FRAMES), group=30, codec="mpeg4"),
    "cut.ts": Recipe(constant_rate(FRAMES), group=30),
}  # fmt: skip


def cut(whole: Path, tmp_path: Path, share: float) -> Path:
    """The first part of the file, of a length that no container's packets are a divisor of."""
    content = whole.read_bytes()
    path = tmp_path / whole.name
    path.write_bytes(content[: int(len(content) * share) // 2 * 2 + 1])
    return path


def assert_true(clip: Clip, recipe: Recipe) -> None:
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices)
    assert clip.timestamps_seconds == pytest.approx([recipe.seconds[index] for index in clip.indices], abs=0.0015)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("share", [0.35, 0.62, 0.81])
def test_a_cut_file_gives_only_right_frames_and_says_that_it_is_cut(
    video: WriteVideo, tmp_path: Path, reader: ReaderName, name: str, share: float
) -> None:
    path = cut(video(name, RECIPES[name]), tmp_path, share)
    if reader is ReaderName.OPENCV and name.endswith(".avi") and share < 0.4:
        pytest.skip("the file ends before the first group does, which OpenCV cannot vouch for")
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=reader)
    assert_true(clip, RECIPES[name])
    assert 0 < clip.video.num_frames < FRAMES
    assert any("file ends early" in warning or "damaged at its end" in warning for warning in clip.warnings)


def test_the_warning_says_how_much_is_missing(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    clip = read_here(cut(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path, 0.55), reader=reader)
    readable = clip.video.duration_seconds
    assert 1.0 < readable < 4.0
    warning = f"claims 6.0 s, {readable:.1f} s of them can be read, {6.0 - readable:.1f} s are missing"
    assert warning in clip.warnings[0]


def test_sampling_spreads_over_what_can_be_read(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    path = cut(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path, 0.6)
    clip = read_here(path, SamplingOptions(num_frames=8), reader=reader)
    assert len(clip.indices) == 8
    assert clip.indices[-1] == clip.video.num_frames - 1


def test_the_last_group_before_a_cut_is_left_out(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    """A frame next to a truncation was seen to be wrong without being flagged."""
    clip = read_here(cut(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path, 0.6), reader=reader)
    assert clip.video.num_frames % 30 == 0


@pytest.mark.parametrize("byte", range(41, 100, 6))
def test_every_place_to_cut(video: WriteVideo, tmp_path: Path, byte: int) -> None:
    for name in ("cut.mp4", "cut_one_group.mp4", "cut.mkv"):
        path = cut(video(name, RECIPES[name]), tmp_path, byte / 100)
        clip = read_here(path, SamplingOptions(num_frames=40), reader=ReaderName.PYAV)
        assert_true(clip, RECIPES[name])
        assert clip.warnings


def test_a_file_cut_within_its_first_frame_is_unreadable(
    video: WriteVideo, tmp_path: Path, reader: ReaderName, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = video("cut.mp4", RECIPES["cut.mp4"]).read_bytes()
    path = tmp_path / "first.mp4"
    path.write_bytes(whole[: whole.index(b"mdat") + 400])
    with pytest.raises(UnreadableVideoError, match="damaged"):
        read_here(path, reader=reader)
    assert capfd.readouterr().err == ""


def wipe_group(whole: Path, path: Path, number: int, first: int = 10, count: int = 4) -> Path:
    """Overwrite packets of a group with noise: bad sectors.

    Sizes are kept, and what kind of unit each is: noise that happened to be parameters spoilt all that came after.
    """
    import av

    content = bytearray(whole.read_bytes())
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pos is not None and packet.size]
    starts = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    for packet in packets[starts[number] + first : starts[number] + first + count]:
        begin = (packet.pos or 0) + 5
        content[begin : begin + packet.size - 5] = random.Random(packet.pos).randbytes(packet.size - 5)
    path.write_bytes(content)
    return path


def test_frames_in_a_damaged_group_are_left_out_and_counted(
    video: WriteVideo, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = wipe_group(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path / "wiped.mp4", 2)
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert_true(clip, RECIPES["cut.mp4"])
    assert clip.video.num_frames == FRAMES
    missing = [frame.index for frame in clip.missing]
    assert set(clip.indices) | set(missing) == set(range(FRAMES))
    assert missing
    assert min(missing) >= 60
    assert max(missing) == 89, "the group after the damage is sound again"
    assert all("damaged" in frame.reason for frame in clip.missing)
    assert clip.warnings[-1].startswith(f"{len(clip.missing)} of the 150 frames asked for could not be decoded")
    assert capfd.readouterr().err == ""


def test_damage_that_begins_with_the_next_group_costs_no_frame_before_it(video: WriteVideo, tmp_path: Path) -> None:
    """The decoder gives its last frames only after it has been handed packets of the next group."""
    path = wipe_group(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path / "wiped.mp4", 2, first=0)
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert_true(clip, RECIPES["cut.mp4"])
    assert [frame.index for frame in clip.missing] == list(range(60, 90))


def test_asking_only_for_lost_frames_is_an_error(video: WriteVideo, tmp_path: Path) -> None:
    """Every packet but the key frame's is noise: with a few of them, what was lost depended on how they decoded."""
    path = wipe_group(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path / "wiped.mp4", 2, first=1, count=29)
    with pytest.raises(UnreadableVideoError, match="None of the"):
        read_here(
            path,
            SamplingOptions(start_seconds=84 / 25, end_seconds=88 / 25),
            reader=ReaderName.PYAV,
        )


def test_a_damaged_first_group_does_not_hide_the_others(video: WriteVideo, tmp_path: Path) -> None:
    path = wipe_group(video("cut.mp4", RECIPES["cut.mp4"]), tmp_path / "wiped.mp4", 0)
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert_true(clip, RECIPES["cut.mp4"])
    assert set(range(30, FRAMES)) <= set(clip.indices)


@pytest.mark.parametrize("group", [0, 2])
def test_damage_does_not_shift_the_frames_after_it_where_everything_is_decoded_in_order(
    video: WriteVideo, tmp_path: Path, group: int
) -> None:
    """An AVI has no presentation times to match frames by."""
    recipe = Recipe(constant_rate(FRAMES), group=30)
    path = wipe_group(video("in_order.avi", recipe), tmp_path / "wiped.avi", group)
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    numbers = [number_in(frame) or 0 for frame in clip.frames]
    assert 120 <= len(numbers) < FRAMES
    assert numbers == [round(seconds * 25) for seconds in clip.timestamps_seconds]
    lost = set(range(FRAMES)) - set(numbers)
    assert 30 * group + 5 < min(lost) <= max(lost) == 30 * group + 29


def test_a_duration_that_lies_about_whole_frames_loses_nothing(video: WriteVideo, tmp_path: Path) -> None:
    """Neither a warning nor a group left out: every frame that the index names is there."""
    content = bytearray(video("cut.mp4", RECIPES["cut.mp4"]).read_bytes())
    # Both boxes are of version 0, in units of 4 bytes: flags, two dates, time scale, duration; flags, count, duration.
    for box, offset in ((b"mdhd", 16), (b"elst", 8)):
        begin = content.index(box) + len(box) + offset
        content[begin : begin + 4] = (int.from_bytes(content[begin : begin + 4], "big") * 50).to_bytes(4, "big")
    path = tmp_path / "lie.mp4"
    path.write_bytes(content)
    clip = read_here(path, reader=ReaderName.PYAV)
    assert clip.video.num_frames == FRAMES
    assert clip.video.duration_seconds == pytest.approx(6.0)
    assert clip.warnings == ()


def test_a_file_that_is_replaced_while_it_is_read_gives_no_frame_of_the_other(
    video: WriteVideo, tmp_path: Path, reader: ReaderName
) -> None:
    """Further handles open the path again: 20 of 60 frames came from the other file, without a word.

    The thread with the first handle may do all the work before another opens the path, and then nothing is wrong: all
    frames are asked for, of which it cannot do more than wait in the first group until the other thread was there.
    """
    path = tmp_path / "replaced.mp4"
    path.write_bytes(video("cut.mp4", RECIPES["cut.mp4"]).read_bytes())
    other = tmp_path / "other.mp4"
    other.write_bytes(video("cut_one_group.mp4", RECIPES["cut_one_group.mp4"]).read_bytes())
    with open_here(path, ReadOptions(reader, num_threads=2)) as opened:
        other.replace(path)
        with pytest.raises(UnreadableVideoError, match="was changed while it was read"):
            read_when_one_thread_is_left(opened)
        path.unlink()
        with pytest.raises(UnreadableVideoError, match="is gone"):
            read_when_one_thread_is_left(opened)


def read_when_one_thread_is_left(opened: VideoReader) -> None:
    """Read all, but for the first frame only once the second of the reader's threads has ended, if it has two.

    Counted are the threads that came since: another test's may still run, a server's that ends late.
    """
    before = set(threading.enumerate())
    frames = opened.read(range(FRAMES))
    next(frames)
    deadline = time.monotonic() + 60
    while len(set(threading.enumerate()) - before) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    list(frames)


@pytest.mark.parametrize("share", [0.96, 0.985])
@pytest.mark.parametrize(("name", "codec"), [("late.mkv", "libx264"), ("late.webm", "libvpx-vp9")])
def test_a_file_cut_in_its_last_packets_is_known_by_its_segment(
    video: WriteVideo, tmp_path: Path, reader: ReaderName, name: str, codec: str, share: float
) -> None:
    """With B-frames the last one shown comes early in the file: what its end lacks was not missed."""
    recipe = Recipe(constant_rate(FRAMES), group=30, codec=codec)
    clip = read_here(cut(video(name, recipe), tmp_path, share), SamplingOptions(num_frames=1000), reader=reader)
    assert_true(clip, recipe)
    assert clip.warnings


def test_an_intra_refresh_has_key_frames_that_show_nothing_yet(tmp_path: Path) -> None:
    """Each picture is refreshed column by column: decoding from a recovery point gives frames only later."""
    path = write_video(tmp_path / "refresh.mp4", Recipe(constant_rate(90), group=20, options={"intra-refresh": "1"}))
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == list(range(90))
    assert (clip.missing, clip.warnings) == ((), ())


@pytest.mark.parametrize(("name", "num_bytes"), [("zeros.mpg", 2000), ("zeros.mkv", 300)])
def test_damage_is_noticed_where_frames_are_shown_before_their_key_frame(
    video: WriteVideo, tmp_path: Path, name: str, num_bytes: int
) -> None:
    """As DVDs and broadcasts are made. What the decoder had patched up was shown."""
    whole = video(f"open-{name}", Recipe(constant_rate(90), "mpeg2video", group=15, options={"bf": "2", "b": "1M"}))
    with reader_here(whole, ReaderName.PYAV) as opened:
        sound = {frame.timestamp_seconds: frame.pixels for frame in opened.read(range(90))}
    content = bytearray(whole.read_bytes())
    begin = len(content) // 3
    content[begin : begin + num_bytes] = bytes(num_bytes)
    path = tmp_path / name
    path.write_bytes(content)
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    for pixels, seconds in zip(clip.frames, clip.timestamps_seconds, strict=True):
        assert (pixels == sound[seconds]).all()
    assert 60 < len(clip.frames) < 90


def test_an_intra_refresh_is_no_damage_where_the_container_knows_its_key_frames(tmp_path: Path) -> None:
    """Their first slices refer to pictures before them."""
    options = {"x264-params": "intra-refresh=1:scenecut=0", "preset": "veryfast"}
    path = write_video(tmp_path / "refresh.ts", Recipe(constant_rate(75), group=20, options=options))
    for places in (range(75), [50], [25, 70]):
        with reader_here(path, ReaderName.PYAV) as opened:
            assert [number_in(frame.pixels) for frame in opened.read(places)] == list(places)
            assert (opened.missing, opened.warnings) == ((), ())


@pytest.mark.parametrize("name", ["whole.mp4", "whole.ts", "whole.mkv"])
def test_a_key_frame_that_does_not_start_afresh_is_no_damage(tmp_path: Path, name: str) -> None:
    """A strict decoder took what its group says of earlier pictures for damage: of 75 frames 52 were left out."""
    options = {"x264-params": "open-gop=1:b-adapt=0:bframes=3:scenecut=0"}  # 21 frames: no B-frame before a key frame
    path = write_video(tmp_path / name, Recipe(constant_rate(75), group=21, options=options))
    for places in (range(75), [50], [25, 70]):
        with reader_here(path, ReaderName.PYAV) as opened:
            assert [number_in(frame.pixels) for frame in opened.read(places)] == list(places)
            assert (opened.key_frames, opened.missing, opened.warnings) == ((0, 21, 42, 63), (), ())


def test_a_stream_may_begin_with_a_key_frame_that_does_not_start_afresh(tmp_path: Path) -> None:
    """A recording that was cut out of a longer one, without times: no frame of it could be decoded."""
    options = {"x264-params": "open-gop=1:b-adapt=0:bframes=3:scenecut=0"}
    whole = write_video(tmp_path / "whole.h264", Recipe(constant_rate(75), group=21, options=options)).read_bytes()
    kinds = {part.start(): part[1][0] & 0x1F for part in re.finditer(rb"\x00?\x00\x00\x01(.)", whole, re.DOTALL)}
    first_slice = next(place for place, kind in kinds.items() if kind == 5)
    headers = next(place for place, kind in kinds.items() if kind == 7)
    second_group = next(place for place, kind in kinds.items() if kind in (6, 7) and place > first_slice)
    path = tmp_path / "part.h264"
    path.write_bytes(whole[headers:first_slice] + whole[second_group:])
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == list(range(21, 75))


def test_frames_before_the_first_key_frame_are_counted(video: WriteVideo, tmp_path: Path) -> None:
    """A recording of a broadcast that begins anywhere."""
    import av

    whole, path = video("cut.ts", RECIPES["cut.ts"]), tmp_path / "joined.ts"
    with av.open(str(whole)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content = whole.read_bytes()
        assert packets[10].pos is not None
        head = content[: 188 * 3]  # the tables of programs
        path.write_bytes(head + content[packets[10].pos // 188 * 188 :])
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert number_in(clip.frames[0]) == 30
    assert any("before the first key frame" in warning for warning in clip.warnings)
