"""Ask questions about video files on your own machine, with the slow-fast architecture (Shi et al. 2025)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from sfvqa.errors import SfvqaError as SfvqaError
    from sfvqa.inference import Answer as Answer
    from sfvqa.inference import EncodedVideo as EncodedVideo
    from sfvqa.inference import FindOptions as FindOptions
    from sfvqa.inference import GenerationOptions as GenerationOptions
    from sfvqa.inference import JsonSchema as JsonSchema
    from sfvqa.inference import PromptOptions as PromptOptions
    from sfvqa.inference import Timings as Timings
    from sfvqa.inference import VideoQA as VideoQA
    from sfvqa.inference.speech import SpeechOptions as SpeechOptions
    from sfvqa.inference.speech import Transcriber as Transcriber
    from sfvqa.inference.speech import Transcript as Transcript
    from sfvqa.model import SlowAttention as SlowAttention
    from sfvqa.video import Clip as Clip
    from sfvqa.video import SamplingOptions as SamplingOptions
    from sfvqa.video import VideoInfo as VideoInfo
    from sfvqa.video import WindowOptions as WindowOptions
    from sfvqa.video.subtitles import read_subtitle_file as read_subtitle_file

_HOME = {
    "Answer": "sfvqa.inference",
    "Clip": "sfvqa.video",
    "EncodedVideo": "sfvqa.inference",
    "FindOptions": "sfvqa.inference",
    "GenerationOptions": "sfvqa.inference",
    "JsonSchema": "sfvqa.inference",
    "PromptOptions": "sfvqa.inference",
    "SamplingOptions": "sfvqa.video",
    "SfvqaError": "sfvqa.errors",
    "SlowAttention": "sfvqa.model",
    "SpeechOptions": "sfvqa.inference.speech",
    "Timings": "sfvqa.inference",
    "Transcriber": "sfvqa.inference.speech",
    "Transcript": "sfvqa.inference.speech",
    "VideoInfo": "sfvqa.video",
    "VideoQA": "sfvqa.inference",
    "WindowOptions": "sfvqa.video",
    "read_subtitle_file": "sfvqa.video.subtitles",
}
"""Where each public name lives: imported on first use, so that `sfvqa --help` imports no torch."""

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sfvqa' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
