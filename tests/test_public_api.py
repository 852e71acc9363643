"""`from sfvqa import …` offers exactly what the README teaches, and loads it only when asked."""

import subprocess
import sys

import pytest

import sfvqa

PUBLIC = {
    "Answer",
    "Clip",
    "EncodedVideo",
    "FindOptions",
    "GenerationOptions",
    "JsonSchema",
    "PromptOptions",
    "SamplingOptions",
    "SfvqaError",
    "SlowAttention",
    "SpeechOptions",
    "Timings",
    "Transcriber",
    "Transcript",
    "VideoInfo",
    "VideoQA",
    "WindowOptions",
    "__version__",
    "read_subtitle_file",
}


def test_the_exported_names_are_exact() -> None:
    assert set(sfvqa.__all__) == PUBLIC
    assert set(dir(sfvqa)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_exported_name_can_be_had(name: str) -> None:
    assert getattr(sfvqa, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        _ = sfvqa.Nonsense


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "av", "cv2", "rich", "faster_whisper")
    code = f"import sfvqa, sys; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
