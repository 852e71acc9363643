"""The sound of a file comes with times from the first frame, whatever starts when, and an end to whatever hangs."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sfvqa.errors import ReadTimeoutError
from sfvqa.video import ReaderName, ReadOptions, open_video
from sfvqa.video.readers.sound import SAMPLE_RATE, _Hearing

from ..sounds import Sound, tones_in, write_with_sound
from .test_isolated import sabotage

HERE = ReadOptions(isolated=False)
Chunk = tuple[float, NDArray[np.int16]]


def listen(path: Path, options: ReadOptions = HERE) -> tuple[list[Chunk], list[str]]:
    """The chunks and the warnings."""
    chunks: list[Chunk] = []
    warnings: list[str] = []
    with open_video(path, options) as reader:
        for each in reader.sound():
            warnings.append(each) if isinstance(each, str) else chunks.append(each)
    return chunks, warnings


def tone_times(chunks: list[Chunk]) -> list[float]:
    return [start + tone for start, samples in chunks for tone, _ in tones_in(samples, SAMPLE_RATE)]


def close_to(times: list[float]) -> object:
    return pytest.approx(times, abs=0.03)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("picture_starts_at", "starts_at"), [(0.0, 0.0), (0.0, 1.5), (2.0, 0.0), (2.0, 1.5), (2.0, -1.5)]
)
def test_a_tone_is_heard_when_it_sounds_by_the_pictures(
    tmp_path: Path, container: str, picture_starts_at: float, starts_at: float
) -> None:
    """Sound may start after the first frame or before it; a container may show its first frame late."""
    sound = Sound([2.0, 4.0], starts_at=starts_at)
    path = write_with_sound(tmp_path / f"v.{container}", sound, picture_starts_at=picture_starts_at)
    chunks, warnings = listen(path)
    assert tone_times(chunks) == close_to([2.0, 4.0])
    assert warnings == []
    assert chunks[0][0] == pytest.approx(max(starts_at, 0), abs=0.05)


def test_what_sounds_before_the_first_frame_is_left_out(tmp_path: Path) -> None:
    sound = Sound([-1.0, 1.0], starts_at=-1.5)
    chunks, warnings = listen(write_with_sound(tmp_path / "v.mkv", sound, picture_starts_at=2.0))
    assert tone_times(chunks) == close_to([1.0])
    assert (chunks[0][0], warnings) == (0.0, [])


def test_behind_a_gap_in_the_sound_times_are_still_right(tmp_path: Path) -> None:
    """Samples are counted only as long as nothing is missing."""
    chunks, _ = listen(write_with_sound(tmp_path / "v.mkv", Sound([1.0, 5.0], without=(2.0, 4.0))))
    assert tone_times(chunks) == close_to([1.0, 5.0])
    starts = [start for start, _ in chunks]
    assert starts == [pytest.approx(0.0, abs=0.05), pytest.approx(4.0, abs=0.05)]


def test_damaged_packets_are_silent_and_said(tmp_path: Path) -> None:
    def spoil(data: bytes, seconds: float) -> bytes:
        return b"\xff" * len(data) if 2.0 <= seconds < 2.5 else data

    path = write_with_sound(tmp_path / "v.mkv", Sound([1.0, 4.0]), codec="flac", spoil=spoil)
    chunks, warnings = listen(path)
    assert tone_times(chunks) == close_to([1.0, 4.0])
    assert len(warnings) == 1
    assert warnings[0].startswith("The sound is damaged in ")


def test_sound_at_times_of_before_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorder sets its clock back for a second; nothing is heard twice, and no sound is taken for a later one."""
    seconds = _Hearing._seconds
    monkeypatch.setattr(
        _Hearing, "_seconds", lambda *given: (at := seconds(*given)) - (Fraction(3) if 4 < at < 5 else 0)
    )
    chunks, warnings = listen(write_with_sound(tmp_path / "v.mkv", Sound([1.0, 4.5, 5.5], seconds=8.0)))
    assert [start for start, _ in chunks] == [0.0, pytest.approx(5.0, abs=0.03)]
    assert tone_times(chunks) == close_to([1.0, 5.5])
    assert warnings == ["1.0 s of sound have times of what came before, and are left out."]


def test_times_that_are_guessed_a_little_early_are_no_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the frames of one packet FFmpeg guesses all times but the first."""
    seconds = _Hearing._seconds
    monkeypatch.setattr(_Hearing, "_seconds", lambda *given: (at := seconds(*given)) - at % Fraction(1, 4))
    chunks, warnings = listen(write_with_sound(tmp_path / "v.mkv", Sound([1.0, 5.0])))
    assert tone_times(chunks) == close_to([1.0, 5.0])
    assert (len(chunks), warnings) == (1, [])


def test_behind_a_change_of_the_sample_rate_times_are_right(tmp_path: Path) -> None:
    """As where recordings were joined; FFmpeg then guesses some times by the first rate."""
    parts = [
        write_with_sound(tmp_path / "1.ts", Sound([1.0, 4.0])),
        write_with_sound(tmp_path / "2.ts", Sound([1.0, 4.0], rate=16_000), picture_starts_at=6.0),
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    chunks, warnings = listen(joined)
    assert tone_times(chunks) == pytest.approx([1.0, 4.0, 7.0, 10.0], abs=0.06)
    assert warnings == []


def test_of_several_tracks_the_default_one_is_heard(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "v.mkv", Sound([1.0], is_default=False), Sound([3.0]))
    chunks, warnings = listen(path)
    assert tone_times(chunks) == close_to([3.0])
    assert warnings == ["The file has 2 sound tracks; track 2 (aac, language unknown) is heard."]


@pytest.mark.parametrize("options", [HERE, ReadOptions()])
def test_a_video_without_sound_says_so(tmp_path: Path, options: ReadOptions) -> None:
    assert listen(write_with_sound(tmp_path / "v.mp4"), options) == ([], ["The video has no sound."])


def test_a_reader_that_reads_none_says_so(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "v.mp4", Sound([1.0]))
    chunks, (warning,) = listen(path, ReadOptions(ReaderName.OPENCV, isolated=False))
    assert (chunks, warning) == ([], "The reader “opencv” reads no sound: nothing is heard.")


def test_the_process_gives_what_the_reader_gives(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "v.mp4", Sound([1.0], seconds=70), seconds=2)
    (here, _), (there, _) = listen(path), listen(path, ReadOptions())
    assert [start for start, _ in there] == [start for start, _ in here]
    for (_, mine), (_, theirs) in zip(here, there, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert max(len(samples) for _, samples in here) < 31 * SAMPLE_RATE, "memory does not grow with the file"


def test_reading_that_hangs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_with_sound(tmp_path / "v.mp4", Sound([1.0]))
    sabotage(monkeypatch, "PyAVReader.sound = lambda *_: (time.sleep(60) for _ in range(1))")
    with pytest.raises(ReadTimeoutError, match="while reading the sound"):
        listen(path, ReadOptions(timeout_seconds=3))


def test_the_reader_can_be_used_after_listening_was_left(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "v.mp4", Sound([1.0], seconds=70), seconds=2)
    with open_video(path) as reader:
        sound = reader.sound()
        next(sound)
        sound.close()
        assert len(list(reader.read([0, 5]))) == 2
