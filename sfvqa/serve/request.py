"""One question on its way through the server: what is asked, and what happens to it, told to whoever waits."""

import logging
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sfvqa.errors import ServerError, SfvqaError
from sfvqa.inference.answer import Answer, FinishReason, TokenCounts
from sfvqa.inference.encode import EncodedVideo, EncodeProgress
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.question import PromptOptions
from sfvqa.video.fitting import CropMode
from sfvqa.video.readers import ReadOptions
from sfvqa.video.sampling import SamplingOptions
from sfvqa.video.windows import Window

if TYPE_CHECKING:
    from sfvqa.serve.sight import OpenVideo

Message = Mapping[str, Any]
Event = EncodeProgress | str | Answer | Message | Exception | None
"""Progress with the video, a piece of the answer, and as the last one the answer or why there is none.

Of work that is the request's own its messages, and None at its end.
"""
Work = Callable[[EncodedVideo | None], Generator[Message, None, None]]
"""What is done with a video on the model's thread, a step at a time, each with a message of what came of it."""


class Answered(Protocol):
    """What is sent back of an answer, or of those about all windows of a video."""

    @property
    def text(self) -> str:
        """What was said."""

    @property
    def model(self) -> str:
        """Who said it."""

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ends there."""

    @property
    def tokens(self) -> TokenCounts:
        """How long it is."""

    def to_dict(self) -> dict[str, object]:
        """All there is to know of it."""


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A question about a video, or none, with the turns before it, a question and an answer each.

    `shown_as` is the video's path in the answer, where it was named otherwise. Of a `window`, `sampling` has the range,
    and `kept_open` may have the open video.
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
    window: Window | None = None
    kept_open: "OpenVideo | None" = None

    @property
    def num_frames(self) -> int:
        """How many frames it may be about at most."""
        return 0 if self.video is None else len(self.sampling.timestamps_seconds or ()) or self.sampling.num_frames

    @property
    def num_characters(self) -> int:
        """The length of all that is said in it."""
        said = [self.question, self.prompt.system or "", self.prompt.template or "", *(self.choices or ())]
        return sum(map(len, said)) + sum(len(text) for turn in self.history for text in turn)

    def can_be_answered_with(self, other: "Request") -> bool:
        """Whether both can stand in one batch: only what is asked, and about which video, may differ."""
        return (self.prompt, self.generation, self.choices) == (other.prompt, other.generation, other.choices)


@dataclass(eq=False)
class Job:
    """A request and whoever waits for it: `tell` is called with every event, from any thread, and must not block.

    With `work`, that is done in place of answering. It `is_over` once the last event was told, or nobody waits any
    longer. Times are by the monotonic clock.
    """

    request: Request
    tell: Callable[[Event], None]
    work: Work | None = None
    is_over: bool = False
    came_at: float = field(default_factory=time.monotonic)
    first_piece_at: float | None = None
    _num_told: int = 0
    _num_written: int = 0

    def begin(self) -> None:
        """Begin to write the answer, once more if an attempt before failed: what was told of it then is not again."""
        self._num_written = 0

    def write(self, piece: str) -> None:
        """Tell a piece of the answer."""
        known = min(max(self._num_told - self._num_written, 0), len(piece))
        self._num_written += len(piece)
        if not piece[known:]:
            return
        if self.first_piece_at is None:
            self.first_piece_at = time.monotonic()
        self._num_told = self._num_written
        self.tell(piece[known:])


def to_be_told(error: Exception) -> SfvqaError:
    """A copy of an error for one of those it is told to: the error itself keeps alive every tensor it came past.

    One that was not raised on purpose is logged, and told without its words.
    """
    if isinstance(error, SfvqaError):
        return type(error)(error.message, error.remedy)
    _LOG.error("A request failed in a way that was not foreseen.", exc_info=error)
    return ServerError("The server failed with this request.", "What went wrong is in its log.")
