"""Files that lie, end or are damaged anywhere: right frames or a clear error; never a hang, never a traceback.

What a flipped byte does to the pixels can be known only where a decoder notices. In H.264 some flips (of a sign, say)
make another legal video: such a frame is garbled unnoticed, though it is still the one asked for.
"""

import os
import random
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sfvqa.errors import UnreadableVideoError, VideoError
from sfvqa.video import Clip, ReaderName, ReadOptions, SamplingOptions, read_clip
from tests.windows import needs_pipes

from ..conftest import WriteVideo
from ..here import read_here
from ..videos import Recipe, constant_rate, number_in, write_video

FPS, FRAMES = 25, 75
WHOLE = {
    "hostile.mp4": Recipe(constant_rate(FRAMES), group=15, container_options={"movflags": "faststart"}),
    "hostile.webm": Recipe(constant_rate(FRAMES), group=15, codec="libvpx-vp9"),
    "hostile.avi": Recipe(constant_rate(FRAMES), group=15, codec="mpeg4"),
}
EVERY_FRAME = SamplingOptions(num_frames=1000)


def numbers_asked_for(clip: Clip) -> list[int]:
    """By the times: in a damaged AVI file the places count only what is left."""
    return [round(seconds * FPS) for seconds in clip.timestamps_seconds]


def flip_bytes(content: bytes, seed: int) -> bytes:
    """Between one and a hundred bytes somewhere in the middle four fifths."""
    rng, mutated = random.Random(seed), bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20, 100])):
        mutated[rng.randrange(len(mutated) // 10, len(mutated) * 9 // 10)] ^= rng.randrange(1, 256)
    return bytes(mutated)


def count_outcomes(contents: list[bytes], path: Path, reading: ReadOptions) -> Counter[str]:
    """Read each file and count what happened to files and frames; anything but a VideoError goes through."""
    counts: Counter[str] = Counter()
    for content in contents:
        path.write_bytes(content)
        try:
            clip = read_clip(path, EVERY_FRAME, reading=reading)
        except VideoError:
            counts["files refused"] += 1
            continue
        counts["files read"] += 1
        counts["frames missing, and said so"] += FRAMES - len(clip.indices)
        for asked, frame in zip(numbers_asked_for(clip), clip.frames, strict=True):
            shown = number_in(frame)
            counts["frames right" if shown == asked else "garbled" if shown is None else "another number"] += 1
    return counts


@pytest.mark.parametrize("name", WHOLE)
def test_each_run_damages_the_same_bytes(tmp_path: Path, name: str) -> None:
    """x264's mbtree and Matroska's random numbers made these tests fail by chance."""
    written = {write_video(tmp_path / f"{attempt}-{name}", WHOLE[name]).read_bytes() for attempt in range(5)}
    assert len(written) == 1


@pytest.mark.parametrize("name", WHOLE)
def test_flipped_bytes(video: WriteVideo, tmp_path: Path, name: str) -> None:
    whole = video(name, WHOLE[name]).read_bytes()
    contents = [flip_bytes(whole, seed) for seed in range(40)]
    counts = count_outcomes(contents, tmp_path / name, ReadOptions(isolated=False))
    frames = sum(count for what, count in counts.items() if what.startswith(("frames right", "garbled", "another")))
    not_right = counts["garbled"] + counts["another number"]
    assert counts["files read"] + counts["files refused"] == len(contents)
    if name.endswith(".webm"):  # FFmpeg's own decoder garbles nearly a third of these
        assert not_right == 0, counts
    else:
        # An old picture that damage left standing, not another's place.
        assert counts["another number"] / frames < 0.001, counts
        assert not_right / frames < 0.03, counts


@pytest.mark.slow
@pytest.mark.soak
def test_a_thousand_mutated_files(
    video: WriteVideo,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    """Flipped, cut, and with pieces removed, doubled or swapped, as a user's command reads them: in its own process."""
    total: Counter[str] = Counter()
    began = time.monotonic()
    for name, recipe in WHOLE.items():
        whole = video(name, recipe).read_bytes()
        contents = [mutate(whole, seed) for seed in range(334)]
        counts = count_outcomes(contents, tmp_path / name, ReadOptions(timeout_seconds=30))
        total += counts
        record_property(name, dict(counts))
        with capsys.disabled():
            print(f"\n{name}: {dict(counts)}")  # noqa: T201  the figures are what this is for
    assert total["files read"] + total["files refused"] == 1002
    assert time.monotonic() - began < 30 * 60


def mutate(content: bytes, seed: int) -> bytes:
    """One of five kinds of damage, by the seed."""
    rng = random.Random(seed)
    first, second = sorted(rng.randrange(len(content)) for _ in range(2))
    match seed % 5:
        case 0:
            return content[:first]
        case 1:
            return content[:first] + content[second:]
        case 2:
            return content[:second] + content[first:]
        case 3:
            return content[:first] + rng.randbytes(second - first) + content[second:]
    return flip_bytes(content, seed)


def patch_mp4(content: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """Overwrite `value` at `offset` behind the name of the first such box."""
    at = content.index(box) + 4 + offset
    return content[:at] + value + content[at + len(value) :]


def duration_of(seconds: int) -> Callable[[bytes], bytes]:
    """Let every header of an mp4 claim a length."""

    def patch(content: bytes) -> bytes:
        for box, scale_at, duration_at in ((b"mvhd", 12, 16), (b"mdhd", 12, 16)):
            at = content.index(box) + 4 + scale_at
            (scale,) = struct.unpack(">I", content[at : at + 4])
            content = patch_mp4(content, box, duration_at, struct.pack(">I", seconds * scale))
        return patch_mp4(content, b"tkhd", 20, struct.pack(">I", seconds * 1000))

    return patch


@pytest.mark.parametrize("seconds", [0, 1, 100_000])
def test_a_header_that_lies_about_the_length(
    video: WriteVideo, tmp_path: Path, reader: ReaderName, seconds: int
) -> None:
    path = tmp_path / "lie.mp4"
    path.write_bytes(duration_of(seconds)(video("hostile.mp4", WHOLE["hostile.mp4"]).read_bytes()))
    clip = read_here(path, EVERY_FRAME, reader=reader)
    assert [number_in(frame) for frame in clip.frames] == numbers_asked_for(clip)
    if reader is ReaderName.PYAV:
        assert len(clip.indices) == FRAMES, "what is there counts, not what is claimed"


def test_no_rate_in_the_header(video: WriteVideo, tmp_path: Path, reader: ReaderName) -> None:
    """An AVI file whose header says 0 frames a second."""
    path = tmp_path / "no_rate.avi"
    content = video("hostile.avi", WHOLE["hostile.avi"]).read_bytes()
    at = content.index(b"vids") + 4 + 20  # dwRate, behind fccType, handler, flags, priority, frames, dwScale
    path.write_bytes(content[: at - 4] + bytes(8) + content[at + 4 :])
    try:
        clip = read_here(path, EVERY_FRAME, reader=reader)
    except UnreadableVideoError:
        return
    assert [number_in(frame) for frame in clip.frames] == list(clip.indices)
    assert clip.timestamps_seconds == tuple(sorted(set(clip.timestamps_seconds)))


@pytest.mark.parametrize("name", ["hostile.mp4", "hostile.webm"])
def test_no_index(video: WriteVideo, tmp_path: Path, reader: ReaderName, name: str) -> None:
    content = (
        video(name, WHOLE[name])
        .read_bytes()
        .replace(b"moov", b"lost")
        .replace(b"\x16\x54\xae\x6b", b"\xec\xec\xec\xec")
    )
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableVideoError):
        read_here(path, reader=reader)


def test_a_sliver(tmp_path: Path, reader: ReaderName) -> None:
    """8192 × 16: half a gigabyte a frame if its shorter edge became 576 pixels."""
    import av
    import numpy as np

    from sfvqa.video import CropMode, FitSquare

    path = tmp_path / "sliver.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 8192, 16, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((16, 8192, 3), np.uint8), "rgb24")))
        container.mux(stream.encode(None))
    assert read_here(path, reader=reader).frames.shape == (3, 16, 8192, 3)
    with pytest.raises(UnreadableVideoError, match="crop='pad'"):
        read_here(path, reader=reader, fit=FitSquare(576))
    assert read_here(path, reader=reader, fit=FitSquare(576, CropMode.PAD)).frames.shape == (3, 576, 576, 3)


@pytest.mark.parametrize("name", ["hostile.webm", "hostile.avi"])
def test_a_file_that_grows_while_it_is_read(video: WriteVideo, tmp_path: Path, name: str) -> None:
    """A download that is still under way: what is there by then, each frame the one asked for."""
    content = video(name, WHOLE[name]).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) // 3])
    stopped = threading.Event()

    def grow() -> None:
        with path.open("ab") as file:
            for start in range(len(content) // 3, len(content), 500):
                file.write(content[start : start + 500])
                file.flush()
                if stopped.wait(0.002):
                    return

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(5):
            try:
                clip = read_here(path, EVERY_FRAME)
            except UnreadableVideoError:
                continue
            assert [number_in(frame) for frame in clip.frames] == numbers_asked_for(clip)
    finally:
        stopped.set()
        thread.join()


@needs_pipes
def test_a_named_pipe_nobody_writes_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    began = time.monotonic()
    with pytest.raises(UnreadableVideoError, match="pipe"):
        read_clip(path)
    assert time.monotonic() - began < 5
