"""Questions about videos that were seen whole, until enough have come to be answered together. Knows no model."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sfvqa.batch.options import BatchOptions
from sfvqa.batch.video_ahead import Question
from sfvqa.batch.work import Work
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.prompt_options import PromptOptions

_LONGEST_WAIT_SECONDS = 10.0  # so that little is lost where a batch is ended, and a slow model is seen to work
_MOST_PADDING = 1.25  # what the longest of a batch may have of the shortest, which is padded to it


@dataclass(eq=False)
class WholeVideo:
    """A video that was seen whole; what that cost goes with the first answer about it, then `encoded` is paid."""

    work: Work
    encoded: EncodedVideo
    prompt: PromptOptions


@dataclass(frozen=True, eq=False)
class Waiting:
    """A question about a video that was seen."""

    question: Question
    video: WholeVideo


class WaitingRoom:
    """Holds what is to be answered, in the order in which it came."""

    def __init__(self, options: BatchOptions) -> None:
        self._options = options
        self._waiting: list[Waiting] = []
        self._oldest = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, video: WholeVideo, questions: Sequence[Question]) -> None:
        """Have questions about a video wait."""
        if not self._waiting:
            self._oldest = time.monotonic()
        self._waiting += [Waiting(question, video) for question in questions]

    def is_due(self, batch_size: int) -> bool:
        """Whether to answer now even if more could be seen before: there is enough, or it has waited for long."""
        has_waited = time.monotonic() - self._oldest > _LONGEST_WAIT_SECONDS
        return len(self._waiting) >= batch_size or (bool(self._waiting) and has_waited)

    def take(self, batch_size: int) -> list[Waiting]:
        """The oldest, and what can be answered together with it; no video is parted that need not be."""
        alike = [each for each in self._waiting if self._is_alike(self._waiting[0], each)]
        batch, rest = alike[:batch_size], alike[batch_size:]
        last = batch[-1].video
        if rest and rest[0].video is last and batch[0].video is not last:
            batch = [each for each in batch if each.video is not last]
        taken = set(map(id, batch))
        self._waiting = [each for each in self._waiting if id(each) not in taken]
        self._oldest = time.monotonic()
        return batch

    def _is_alike(self, one: Waiting, other: Waiting) -> bool:
        choices = self._options.choices_for
        if choices(one.question.item) != choices(other.question.item) or one.video.prompt != other.video.prompt:
            return False
        shorter, longer = sorted(len(each.video.encoded.visual_tokens.slow) for each in (one, other))
        return longer <= _MOST_PADDING * shorter
