"""The model put to use on one video: find a checkpoint, encode a video once, ask about it often."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfvqa.inference.answer import Answer, AnswerStream, FinishReason, Timings
    from sfvqa.inference.encode import EncodedVideo
    from sfvqa.inference.engine import GenerationOptions
    from sfvqa.inference.moments import FindOptions
    from sfvqa.inference.question import PromptOptions
    from sfvqa.inference.schema import JsonSchema
    from sfvqa.inference.video_qa import VideoQA

# Loaded on first use: looking for a model (`locate`) must not wait for torch.
_HOME = {
    "Answer": "answer",
    "AnswerStream": "answer",
    "EncodedVideo": "encode",
    "FindOptions": "moments",
    "FinishReason": "answer",
    "GenerationOptions": "engine",
    "JsonSchema": "schema",
    "PromptOptions": "question",
    "Timings": "answer",
    "VideoQA": "video_qa",
}

__all__ = [
    "Answer",
    "AnswerStream",
    "EncodedVideo",
    "FindOptions",
    "FinishReason",
    "GenerationOptions",
    "JsonSchema",
    "PromptOptions",
    "Timings",
    "VideoQA",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
