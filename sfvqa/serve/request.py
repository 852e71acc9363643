"""One question on its way through the server: what is asked, and what happens to it, told to whoever waits."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfvqa.inference.answer import Answer
from sfvqa.inference.encode import EncodedVideo, EncodeProgress
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions

Message = Mapping[str, Any]
Event = EncodeProgress | str | Answer | Message | Exception | None
"""Progress with the video, a piece of the answer, and as the last one the answer or why there is none.

Of work that is the request's own its messages, and None at its end.
"""
Work = Callable[[EncodedVideo | None], Generator[Message, None, None]]
"""What is done with a video on the model's thread, a step at a time, each with a message of what came of it."""


@dataclass(frozen=True)
class Request:
    """A question about a video, or none, with the turns before it, a question and an answer each.

    `shown_as` is the video's path in the answer, where it was named otherwise.
    """

    question: str
    video: Path | None = None
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    crop: CropMode = CropMode.CENTER
    reading: ReadOptions = field(default_factory=ReadOptions)
    history: tuple[tuple[str, str], ...] = ()
    prompt: PromptOptions = field(default_factory=PromptOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)
    choices: tuple[str, ...] | None = None
    shown_as: Path | None = None

    def can_be_answered_with(self, other: "Request") -> bool:
        """Whether both can stand in one batch: only what is asked, and about which video, may differ."""
        return (self.prompt, self.generation, self.choices) == (other.prompt, other.generation, other.choices)


@dataclass(eq=False)
class Job:
    """A request and whoever waits for it: `tell` is called with every event, from any thread, and must not block.

    With `work`, that is done in place of answering. `is_dropped` once nobody waits any longer; `is_over` once the last
    event was told.
    """

    request: Request
    tell: Callable[[Event], None]
    work: Work | None = None
    is_dropped: bool = False
    is_over: bool = False
