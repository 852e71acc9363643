"""A speech model without weights: it hears a word in every tone, and keeps what it was asked."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sfvqa.video.readers.sound import SAMPLE_RATE
from tests.video.sounds import tones_in


@dataclass
class FakeWhisper:
    """Takes what WhisperModel.transcribe takes. All tones are one segment; `language` is what it detects."""

    language: str = "en"
    asked: list[dict[str, Any]] = field(default_factory=list)
    heard_seconds: list[float] = field(default_factory=list)

    def transcribe(self, samples: NDArray[np.float32], **options: Any) -> tuple[Iterator[Any], Any]:
        """The segments, as they are taken, and the facts."""
        assert samples.dtype == np.float32
        self.asked.append(options)
        self.heard_seconds.append(len(samples) / SAMPLE_RATE)
        words = [
            SimpleNamespace(start=start, end=end, word=f" tone{place}")
            for place, (start, end) in enumerate(tones_in(samples, SAMPLE_RATE))
        ]
        segments = [SimpleNamespace(start=words[0].start, end=words[-1].end, words=words)] if words else []
        return iter(segments), SimpleNamespace(language=options["language"] or self.language)


def in_place_of_every_model(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    """The fake that hears from now on."""
    fake = FakeWhisper()

    def load(_folder: object, language: str | None) -> FakeWhisper:
        assert language is None or len(language) == 2
        return fake

    def find(samples: NDArray[np.float32]) -> list[float]:
        return [edge for tone in tones_in(samples, SAMPLE_RATE) for edge in tone]

    monkeypatch.setattr("sfvqa.inference.speech.load_model", load)
    monkeypatch.setattr("sfvqa.inference.speech.find_speech", find)
    monkeypatch.setattr("sfvqa.inference.speech.check_installed", lambda: None)
    return fake


def speech_folder(at: Path) -> Path:
    """A speech model by the names of its files."""
    at.mkdir()
    for name in ("config.json", "model.bin", "tokenizer.json", "vocabulary.txt"):
        (at / name).write_text(name)
    return at
