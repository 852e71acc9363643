"""What is said comes as lines with the pictures' times, is heard once, and not at all where it is known."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfvqa.errors import CheckpointError, ModelNotDownloadedError, UnknownModelError, UsageError
from sfvqa.inference import speech
from sfvqa.inference.speech import SpeechOptions, Transcriber, Transcript
from sfvqa.inference.video_cache.store import VideoCache
from sfvqa.video import ReaderName, ReadOptions
from sfvqa.video.readers.sound import SAMPLE_RATE
from tests.inference.fake_whisper import FakeWhisper, in_place_of_every_model, speech_folder
from tests.video.sounds import Sound, write_with_sound

HERE = ReadOptions(isolated=False)


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    return in_place_of_every_model(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return speech_folder(tmp_path / "whisper")


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_with_sound(tmp_path / "talk.mp4", Sound([1.0, 1.5, 4.0]))


def times(transcript: Transcript) -> list[float]:
    return [line.start_seconds for line in transcript.lines]


@pytest.mark.parametrize("starts_at", [0.0, 0.7, -0.7])
def test_lines_have_times_from_the_first_frame(
    tmp_path: Path,
    folder: Path,
    whisper: FakeWhisper,
    starts_at: float,
) -> None:
    sound = Sound([1.0, 1.5, 4.0], starts_at=starts_at)
    path = write_with_sound(tmp_path / "v.mkv", sound, picture_starts_at=1.0)
    transcript = Transcriber(SpeechOptions(str(folder))).transcribe(path, HERE)
    assert times(transcript) == pytest.approx([1.0, 4.0], abs=0.03)
    assert transcript.lines[0].end_seconds == pytest.approx(1.75, abs=0.03)
    assert [line.text for line in transcript.lines] == ["tone0 tone1", "tone2"]
    assert (transcript.language, transcript.warnings) == ("en", ())
    assert whisper.asked[0]["clip_timestamps"] == pytest.approx(
        [each - max(starts_at, 0) for each in (1.0, 1.25, 1.5, 1.75, 4.0, 4.25)], abs=0.03
    )


def test_without_sound_there_are_no_lines_and_a_warning_and_no_model_is_loaded(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "check_installed", lambda: None)
    monkeypatch.setattr(speech, "load_model", lambda *_: pytest.fail("nothing is to be heard"))
    transcript = Transcriber(SpeechOptions(str(folder))).transcribe(write_with_sound(tmp_path / "v.mp4"), HERE)
    assert (transcript.lines, transcript.language) == ((), None)
    assert transcript.warnings == transcript.as_subtitles.warnings == ("The video has no sound.",)


def test_a_silent_video_has_no_language(tmp_path: Path, folder: Path, whisper: FakeWhisper) -> None:
    """Of silence Whisper makes words, so it is not asked."""
    transcript = Transcriber(SpeechOptions(str(folder))).transcribe(
        write_with_sound(tmp_path / "v.mp4", Sound([])), HERE
    )
    assert (transcript.lines, transcript.language, transcript.warnings, whisper.asked) == ((), None, (), [])


# --- The language ---


def test_the_language_asked_for_is_passed_on(video: Path, folder: Path, whisper: FakeWhisper) -> None:
    transcript = Transcriber(SpeechOptions(str(folder), "de")).transcribe(video, HERE)
    assert whisper.asked[0]["language"] == transcript.language == "de"
    assert transcript.as_subtitles.source == f"speech ({folder}, de)"


def test_all_pieces_are_in_the_language_of_the_first_with_speech(
    tmp_path: Path,
    folder: Path,
    whisper: FakeWhisper,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a name or a jingle would turn a German talk into another language for minutes."""
    monkeypatch.setattr(speech, "_PIECE_SECONDS", 3)
    monkeypatch.setattr(speech, "_CUT_WITHIN_SECONDS", 1)
    path = write_with_sound(tmp_path / "v.mp4", Sound([4.0, 9.0], seconds=10.0))
    whisper.language = "de"
    transcript = Transcriber(SpeechOptions(str(folder))).transcribe(path, HERE)
    assert [asked["language"] for asked in whisper.asked] == [None, "de"]
    assert transcript.language == "de"
    assert times(transcript) == pytest.approx([4.0, 9.0], abs=0.03)


# --- Pieces ---


@given(
    chunks=st.lists(st.tuples(st.floats(0.0, 8.0), st.integers(1, 900)), min_size=1, max_size=8),
    seed=st.integers(0, 1000),
)
def test_pieces_hold_every_sample_at_its_time(chunks: list[tuple[float, int]], seed: int) -> None:
    """Whatever gaps there are, and however long the sound is: nothing moves, nothing is lost, nothing is long."""
    rate = 100
    random = np.random.default_rng(seed)
    given_samples: dict[int, int] = {}
    sound, place = [], 0
    for gap, size in chunks:
        place += round(gap * rate)
        samples = random.integers(1, 32767, size).astype(np.int16)
        given_samples |= {place + offset: int(sample) for offset, sample in enumerate(samples)}
        sound.append((place / rate, samples))
        place += size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sfvqa.video.readers.sound.SAMPLE_RATE", rate)
        patch.setattr(speech, "_PIECE_SECONDS", 4)
        patch.setattr(speech, "_CUT_WITHIN_SECONDS", 1)
        found: dict[int, int] = {}
        for start, piece in speech.pieces(sound):
            assert 0 < len(piece) <= 4 * rate
            found |= {round(start * rate) + offset: round(float(sample) * 32768) for offset, sample in enumerate(piece)}
    assert {at: sample for at, sample in found.items() if sample} == given_samples


def test_no_silence_is_made_of_a_long_gap() -> None:
    """A file may say that its sound goes on after a year."""
    sound, year = np.ones(10, np.int16), 365 * 24 * 3600.0
    assert [(start, len(piece)) for start, piece in speech.pieces([(0.0, sound), (year, sound)])] == [
        (0, 10),
        (year, 10),
    ]


def test_a_piece_ends_where_it_is_quietest_near_its_end() -> None:
    samples = np.ones(100 * SAMPLE_RATE, np.float32)
    samples[10 * SAMPLE_RATE : 11 * SAMPLE_RATE] = 0.0  # too early
    samples[70 * SAMPLE_RATE : 71 * SAMPLE_RATE] = 0.01
    assert 70 <= speech.quietest_place(samples) / SAMPLE_RATE <= 71


# --- What is kept ---


def test_a_video_is_heard_once(
    video: Path,
    folder: Path,
    whisper: FakeWhisper,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache, options = VideoCache(tmp_path / "cache"), SpeechOptions(str(folder))
    first = Transcriber(options, cache).transcribe(video, HERE)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr("sfvqa.video.readers.open_video", lambda *_: pytest.fail("it need not be opened"))
        assert Transcriber(options, cache).transcribe(copy, HERE) == first
    assert len(whisper.asked) == 1
    assert Transcriber(SpeechOptions(str(folder), "de"), cache).transcribe(video, HERE).language == "de"
    (folder / "model.bin").write_text("another")
    Transcriber(options, cache).transcribe(video, HERE)
    assert len(whisper.asked) == 3, "another language or model hears it anew"


def test_that_a_reader_hears_nothing_is_not_kept(
    video: Path, folder: Path, whisper: FakeWhisper, tmp_path: Path
) -> None:
    """Else a look with OpenCV would make the video silent for good."""
    transcriber = Transcriber(SpeechOptions(str(folder)), VideoCache(tmp_path / "cache"))
    deaf = transcriber.transcribe(video, ReadOptions(ReaderName.OPENCV, isolated=False))
    assert deaf.warnings == ("The reader “opencv” reads no sound: nothing is heard.",)
    assert times(transcriber.transcribe(video, HERE)) == pytest.approx([1.0, 4.0], abs=0.03)
    assert len(whisper.asked) == 1


def test_a_damaged_transcript_is_made_again(
    video: Path,
    folder: Path,
    whisper: FakeWhisper,
    tmp_path: Path,
) -> None:
    cache, options = VideoCache(tmp_path / "cache"), SpeechOptions(str(folder))
    first = Transcriber(options, cache).transcribe(video, HERE)
    (kept,) = (tmp_path / "cache").glob("*.text")
    kept.write_bytes(kept.read_bytes().replace(b"tone0", b"tone9"))
    assert Transcriber(options, cache).transcribe(video, HERE) == first
    assert len(whisper.asked) == 2


def test_a_transcript_counts_and_goes_like_what_else_is_kept(
    video: Path,
    folder: Path,
    whisper: FakeWhisper,
    tmp_path: Path,
) -> None:
    cache = VideoCache(tmp_path / "cache")
    Transcriber(SpeechOptions(str(folder)), cache).transcribe(video, HERE)
    assert cache.size_bytes() > 100
    assert not cache.may_hold(cache.content_of(video)), "no encoding of it is there"
    assert cache.num_entries() == 0
    assert cache.clear() > 100
    Transcriber(SpeechOptions(str(folder)), cache).transcribe(video, HERE)
    assert len(whisper.asked) == 2


def test_what_cannot_be_kept_is_said(video: Path, folder: Path, whisper: FakeWhisper, tmp_path: Path) -> None:
    cache = VideoCache(tmp_path / "cache", limit_bytes=10)
    transcriber = Transcriber(SpeechOptions(str(folder)), cache)
    (warning,) = transcriber.transcribe(video, HERE).warnings
    assert warning.startswith("The transcript is not kept: ")
    assert times(transcriber.transcribe(video, HERE)) == pytest.approx([1.0, 4.0], abs=0.03)
    assert len(whisper.asked) == 1, "the last one is remembered"


def test_two_threads_hear_a_video_once(video: Path, folder: Path, whisper: FakeWhisper) -> None:
    """Windows of one video are read side by side."""
    transcriber, found = Transcriber(SpeechOptions(str(folder))), list[Transcript]()
    threads = [
        threading.Thread(target=lambda: found.append(transcriber.transcribe(video, HERE)), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 3
    assert len(whisper.asked) == 1


# --- What cannot be ---


def test_without_the_extra_a_sentence_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(UsageError) as caught:
        Transcriber(SpeechOptions(str(folder)))
    assert "needs faster-whisper" in caught.value.message
    assert caught.value.remedy == 'Install it: pip install "sfvqa[speech]".'


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """faster-whisper with a class that does what `loads` says, and keeps what it was `given`."""
    state: dict[str, Any] = {"loads": SimpleNamespace(supported_languages=["en"])}

    def make(path: str, **options: Any) -> Any:
        state["given"] = (path, options)
        if isinstance(state["loads"], Exception):
            raise state["loads"]
        return state["loads"]

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=make))
    return state


def test_a_model_is_loaded_from_its_folder_alone(folder: Path, library: dict[str, Any]) -> None:
    """faster-whisper would download what it is given by name."""
    assert speech.load_model(folder, "en") is library["loads"]
    path, options = library["given"]
    assert path == str(folder)
    assert options["local_files_only"] is True


def test_a_language_that_the_model_lacks_is_refused(folder: Path, library: dict[str, Any]) -> None:
    """faster-whisper would take English instead, and only log that."""
    with pytest.raises(UsageError, match="does not know the language 'de'") as caught:
        speech.load_model(folder, "de")
    assert caught.value.remedy == "It knows only English (en)."
    library["loads"] = SimpleNamespace(supported_languages=["en", "de"])
    assert speech.load_model(folder, "de") is library["loads"]


def test_a_damaged_model_is_a_checkpoint_error(folder: Path, library: dict[str, Any]) -> None:
    library["loads"] = RuntimeError("File model.bin is incomplete")
    with pytest.raises(CheckpointError, match=r"File model\.bin is incomplete"):
        speech.load_model(folder, None)


def test_a_folder_without_its_files_is_named_with_what_it_lacks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without tokenizer.json, faster-whisper would download one."""
    monkeypatch.setattr(speech, "check_installed", lambda: None)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks tokenizer\.json"):
        Transcriber(SpeechOptions(str(folder)))


def test_a_model_that_is_not_here_is_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "check_installed", lambda: None)
    with pytest.raises(ModelNotDownloadedError, match="whisper-tiny is not") as caught:
        Transcriber(SpeechOptions("whisper-tiny"))
    assert "sfvqa models pull whisper-tiny" in caught.value.remedy
    with pytest.raises(ModelNotDownloadedError, match="whisper-base"):  # which is suggested where none is here
        Transcriber()
    with pytest.raises(UnknownModelError, match="does not hear"):
        Transcriber(SpeechOptions("tiny"))
    with pytest.raises(UnknownModelError, match="whisper-tny") as caught_unknown:
        Transcriber(SpeechOptions("whisper-tny"))
    assert "whisper-tiny" in caught_unknown.value.remedy
