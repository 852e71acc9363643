"""Videos are encoded once, and found again only by the code that would draw the same."""

from dataclasses import replace
from pathlib import Path

import pytest

from sfvqa.lab.comparison.items import TRAINING
from sfvqa.lab.comparison.scenes import Timeline
from sfvqa.lab.comparison.videos import EncodedVideos
from tests.lab.comparison.smallest import SMALLEST


def test_encoded_videos_are_found_by_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by number, tokens of other scenes would be taken for these once the code draws others."""
    before = EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0)
    assert EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0) == before
    assert EncodedVideos(tmp_path, TRAINING, 3, replace(SMALLEST, timeline=Timeline(5.0, 32)))._path(0) != before
    monkeypatch.setattr("sfvqa.lab.comparison.items.BENCHMARK", 7)
    assert EncodedVideos(tmp_path, TRAINING, 3, SMALLEST)._path(0) != before
