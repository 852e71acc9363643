"""What everything above inference needs of a model that answers questions: VideoQA is one, a fake in a test another."""

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from sfvqa.inference.answer import Answer
from sfvqa.inference.answer_stream import AnswerStream
from sfvqa.inference.being_read import VideoBeingRead
from sfvqa.inference.chat import Chat
from sfvqa.inference.encoding import EncodedVideo, EncodeProgress
from sfvqa.inference.generation import GenerationOptions
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.video.fitting import CropMode, Fit
from sfvqa.video.readers import ReadOptions, VideoReader
from sfvqa.video.sampling import SamplingOptions

VideoSource = EncodedVideo | str | Path | None
"""What a question may be about: an encoded video, a video file, or no video at all."""
Unseen = str | Path | VideoReader | VideoBeingRead
"""What may be encoded: a video file, an open one, or one that another thread reads."""


def never() -> bool:
    """For answers that nothing stops."""
    return False


class VideoQuestionAnswerer(Protocol):
    """Anything that can answer questions about videos: a VideoQA, or a fake in a test."""

    @property
    def default_sampling(self) -> SamplingOptions:
        """Which frames `encode` takes unless told otherwise."""

    def fit(self, crop: CropMode | None = None) -> Fit:
        """What is done to each frame before it is encoded."""

    def is_kept(
        self,
        video: Path,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> bool:
        """Whether encoding this video, so, needs no reading."""

    def encode_progressively(
        self,
        video: Unseen,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> Generator[EncodeProgress, None, EncodedVideo]:
        """See a video, yielding progress."""

    def encode(
        self,
        video: str | Path | VideoReader,
        sampling: SamplingOptions | None = None,
        *,
        reading: ReadOptions | None = None,
        crop: CropMode | None = None,
    ) -> EncodedVideo:
        """See a video."""

    def ask(
        self,
        video: VideoSource,
        question: str,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> Answer:
        """Answer one question."""

    def stream(
        self,
        video: VideoSource,
        question: str,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> AnswerStream:
        """Answer one question piece by piece."""

    def stream_all(
        self,
        video: VideoSource,
        questions: Sequence[str],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> Iterator[AnswerStream]:
        """Answer one question after the other."""

    def answer_batch(
        self,
        questions: Sequence[tuple[VideoSource, str]],
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
        stop: Callable[[], bool] = never,
    ) -> list[Answer]:
        """Answer many questions at once."""

    def chat(
        self,
        video: VideoSource,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        context_tokens: int | None = None,
    ) -> Chat:
        """Begin a conversation."""
