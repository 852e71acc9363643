"""One suite for every reader: the very frames asked for, at the times a player shows them."""

import random
from pathlib import Path

import numpy as np
import pytest

from sfvqa.video import FitWithin, ReaderName, SamplingOptions

from ..conftest import WriteVideo
from ..here import read_here, reader_here
from ..videos import HEIGHT, WIDTH, Recipe, constant_rate, number_in, write_video


def uneven(frames: int, start: int = 0) -> list[int]:
    """Times in milliseconds as a phone or a screen recorder gives them."""
    steps = random.Random(7).choices([17, 33, 34, 40, 90, 400], k=frames)
    return [start + sum(steps[:place]) for place in range(frames)]


BIG_GROUPS, SMALL_GROUPS = 250, 12
OPEN_GROUPS = {"x264-params": "open-gop=1:scenecut=0"}
VP8 = Recipe(constant_rate(60), group=60, codec="libvpx")
RECIPES = {
    "long_groups.mp4": Recipe(constant_rate(150), group=BIG_GROUPS),
    "short_groups.mp4": Recipe(constant_rate(150), group=SMALL_GROUPS),
    "two_frame_groups.mp4": Recipe(constant_rate(40), group=2),
    "open_groups.mp4": Recipe(constant_rate(120), group=20, options=OPEN_GROUPS),
    "variable_rate.mp4": Recipe(uneven(120), group=30),
    "variable_rate.mkv": Recipe(uneven(120), group=30),
    "late_start.mp4": Recipe(uneven(80, start=1500), group=30),
    "late_start.mkv": Recipe([1500 + time for time in constant_rate(80)], group=30),
    "with_sound.mp4": Recipe(constant_rate(60), group=20, with_sound=True),
    "fragments.mp4": Recipe(
        constant_rate(60), group=20, container_options={"movflags": "frag_keyframe+empty_moov"}
    ),
    "hevc.mp4": Recipe(constant_rate(60), group=20, codec="libx265"),
    "vp9.webm": Recipe(constant_rate(60), group=20, codec="libvpx-vp9"),
    "vp8.webm": VP8,
    "transport_stream.ts": Recipe(constant_rate(80), group=20),
    "flash.flv": Recipe(constant_rate(60), group=20),
    "mpeg4.avi": Recipe(constant_rate(60), group=20, codec="mpeg4"),
    "motion_jpeg.mov": Recipe(constant_rate(30), codec="mjpeg"),
    "one_frame.mp4": Recipe([0]),
    "two_frames.mp4": Recipe([0, 40]),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(  # OpenCV never seeks: some frames come as all do
    ("reader", "num_frames"), [(ReaderName.PYAV, 9), (ReaderName.PYAV, 1000), (ReaderName.OPENCV, 1000)]
)
def test_every_frame_is_the_one_asked_for(video: WriteVideo, reader: ReaderName, name: str, num_frames: int) -> None:
    recipe = RECIPES[name]
    clip = read_here(video(name, recipe), SamplingOptions(num_frames=num_frames), reader=reader)
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices)
    assert len(clip.indices) == min(num_frames, len(recipe.times))
    assert (clip.indices[0], clip.indices[-1]) == (0, len(recipe.times) - 1)
    expected = [recipe.seconds[index] for index in clip.indices]
    assert clip.timestamps_seconds == pytest.approx(expected, abs=0.0015)  # some containers round to the millisecond
    assert clip.reader == reader.value
    assert clip.missing == ()
    if reader is ReaderName.PYAV:
        assert clip.warnings == ()


@pytest.mark.parametrize("codec", ["flv1", "mjpeg"])
def test_a_container_that_cannot_be_searched_is_read_in_order(tmp_path: Path, codec: str) -> None:
    """A Flash program was no video; some Matroska files without an index were called damaged."""
    path = write_video(tmp_path / "a.swf", Recipe(range(60), codec, group=20, ticks_per_second=25))
    for places in (range(60), [50], [3, 21]):
        with reader_here(path, ReaderName.PYAV) as opened:
            assert [number_in(frame.pixels) for frame in opened.read(places)] == list(places)
            assert opened.timestamps_seconds == pytest.approx([place / 25 for place in range(60)])
            (warning,) = opened.warnings
            assert warning.startswith("This file cannot be entered anywhere but at its start")


@pytest.mark.parametrize(
    "name",
    ["a.mp4", "a.mov", "a.mkv", "a.webm", "a.ts", "a.m2ts", "a.flv", "a.avi", "a.mpg", "a.wmv", "a.nut", "a.h264"],
)
def test_one_frame_is_a_video_in_every_container(tmp_path: Path, name: str) -> None:
    """FFmpeg's seek went to the end of an FLV file of one frame, which was called damaged."""
    codec = {"webm": "libvpx", "mpg": "mpeg2video", "wmv": "wmv2", "nut": "mpeg4"}.get(name.split(".")[1], "libx264")
    path = write_video(tmp_path / name, Recipe([0], codec, ticks_per_second=25))
    clip = read_here(path, reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == [0]
    assert clip.timestamps_seconds == (0.0,)
    assert not any("early" in warning or "damage" in warning for warning in clip.warnings)


@pytest.mark.parametrize("name", ["short_groups.mp4", "variable_rate.mp4", "one_frame.mp4"])
def test_what_is_said_about_the_video_is_true(video: WriteVideo, reader: ReaderName, name: str) -> None:
    recipe = RECIPES[name]
    path = video(name, recipe)
    with reader_here(path, reader) as opened:
        info = opened.info
    assert (info.path, info.num_frames, info.codec, info.rotation) == (path, len(recipe.times), "h264", 0)
    assert (info.width, info.height) == (WIDTH, HEIGHT)
    steps = len(recipe.times) - 1
    assert info.fps == pytest.approx(steps / recipe.seconds[-1] if steps else 25, rel=0.01)
    assert recipe.seconds[-1] < info.duration_seconds < recipe.seconds[-1] + 0.5


@pytest.mark.parametrize("codec", ["libx264", "libvpx-vp9"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_turned_camera_gives_upright_pictures(
    video: WriteVideo, reader: ReaderName, rotation: int, codec: str
) -> None:
    """Also in VP9, whose watchful decoder is not told of the turn."""
    recipe = Recipe(constant_rate(12), codec, group=6, rotation=rotation)
    clip = read_here(video(f"turned_{rotation}_{codec}.mp4", recipe), reader=reader)
    assert [number_in(frame) for frame in clip.frames] == list(range(12))
    assert (clip.video.width, clip.video.height, clip.video.rotation) == (WIDTH, HEIGHT, rotation)
    assert clip.frames.shape[1:] == (HEIGHT, WIDTH, 3)


def test_a_range_is_counted_from_the_first_frame_not_from_the_containers_clock(
    video: WriteVideo, reader: ReaderName
) -> None:
    path = video("late_start.mkv", RECIPES["late_start.mkv"])
    clip = read_here(path, SamplingOptions(start_seconds=1.0, end_seconds=1.2), reader=reader)
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices) == [25, 26, 27, 28, 29, 30]


def test_colours_are_red_green_blue(tmp_path: Path, reader: ReaderName) -> None:
    import av

    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        red = np.zeros((64, 64, 3), np.uint8)
        red[..., 0] = 220
        container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode(None))
    pixel = read_here(path, reader=reader).frames[0].mean(axis=(0, 1))
    assert pixel == pytest.approx([220, 0, 0], abs=6)


def test_a_name_in_any_script_is_opened(video: WriteVideo, reader: ReaderName, tmp_path: Path) -> None:
    path = tmp_path / "vidéo 影片 – 🎬 50%03d 'quoted'.mp4"
    path.write_bytes(video("two_frames.mp4", RECIPES["two_frames.mp4"]).read_bytes())
    assert len(read_here(path, reader=reader).indices) == 2


def test_a_name_with_a_colon_is_a_file_not_a_protocol(
    video: WriteVideo, reader: ReaderName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a.mp4").write_bytes(video("two_frames.mp4", RECIPES["two_frames.mp4"]).read_bytes())
    assert len(read_here("concat:a.mp4", reader=reader).indices) == 2


def test_frames_are_resized_as_they_are_read(video: WriteVideo, reader: ReaderName) -> None:
    path = video("short_groups.mp4", RECIPES["short_groups.mp4"])
    with reader_here(path, reader) as opened:
        frames = list(opened.read([3, 50], fit=FitWithin(72, 48)))
    assert [frame.pixels.shape for frame in frames] == [(48, 72, 3)] * 2
    assert [number_in(frame.pixels) for frame in frames] == [3, 50]


def test_a_reader_can_be_read_twice_in_any_region(video: WriteVideo, reader: ReaderName) -> None:
    path = video("short_groups.mp4", RECIPES["short_groups.mp4"])
    with reader_here(path, reader) as opened:
        for indices in ([100, 149], [0, 1], [], [60]):
            assert [number_in(frame.pixels) for frame in opened.read(indices)] == indices


@pytest.mark.parametrize("indices", [[3, 1], [1, 1], [-1], [150]])
def test_indices_that_cannot_be_are_refused(video: WriteVideo, reader: ReaderName, indices: list[int]) -> None:
    path = video("short_groups.mp4", RECIPES["short_groups.mp4"])
    with reader_here(path, reader) as opened, pytest.raises(ValueError, match="below 150"):
        list(opened.read(indices))


def test_a_frame_that_is_never_shown_has_no_place(video: WriteVideo, tmp_path: Path) -> None:
    """VP8 has packets that only serve as reference; here one is made from a frame that is shown."""
    import av

    whole = video("vp8.webm", VP8)
    with av.open(str(whole)) as container:
        packet = bytes([packet for packet in container.demux(video=0) if packet.size][30])
    hidden = bytes([packet[0] & ~0x10]) + packet[1:]
    path = tmp_path / "hidden.webm"
    path.write_bytes(whole.read_bytes().replace(packet, hidden))
    clip = read_here(path, SamplingOptions(num_frames=1000), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == [*range(30), *range(31, 60)]
    assert clip.missing == ()


def test_opencv_warns_that_the_rate_varies(video: WriteVideo) -> None:
    path = video("variable_rate.mp4", RECIPES["variable_rate.mp4"])
    with reader_here(path, ReaderName.OPENCV) as opened:
        assert "frame rate varies" in opened.warnings[0]


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        # AVI has no presentation times: with B-frames PyAV's packets carry invented ones, in the wrong order.
        ("b_frames.avi", Recipe(constant_rate(60), group=20)),
        ("bare_stream.h264", Recipe(constant_rate(60), group=20)),
    ],
)
def test_without_presentation_times_everything_is_decoded_and_that_is_said(
    video: WriteVideo, name: str, recipe: Recipe
) -> None:
    clip = read_here(video(name, recipe), SamplingOptions(num_frames=20), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices)
    assert clip.video.num_frames == 60
    assert clip.timestamps_seconds == pytest.approx([recipe.seconds[index] for index in clip.indices], abs=0.002)
    assert "decoded in full" in clip.warnings[0]


def test_a_title_in_another_encoding_is_no_reason_to_refuse_a_video(video: WriteVideo, tmp_path: Path) -> None:
    """Old cameras and encoders write Latin-1 where UTF-8 is meant."""
    import av

    path = tmp_path / "titled.mkv"
    with av.open(str(video("two_frames.mp4", RECIPES["two_frames.mp4"]))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.metadata["title"] = "TITLE"
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"caf\xe9\xdf"))
    assert len(read_here(path, reader=ReaderName.PYAV).indices) == 2


def test_what_the_watchful_decoder_cannot_decode_the_usual_one_does(
    video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some libvpx know no pixels of 10 bit: a sound video must not be called damaged for that."""
    monkeypatch.setattr("sfvqa.video.readers.seeking._WATCHFUL_DECODERS", {"vp9": "libvpx"})  # that is VP8's
    clip = read_here(video("any.webm", Recipe(constant_rate(12), "libvpx-vp9", group=6)), reader=ReaderName.PYAV)
    assert [number_in(frame) for frame in clip.frames] == list(range(12))
    assert clip.warnings == ()
