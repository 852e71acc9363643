"""Questions about encoded videos, which wait until enough have come to be answered together."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sfvqa.batch.item import Question
from sfvqa.batch.plan import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.video_ahead import Attempt
from sfvqa.batch.watchdog import Watchdog
from sfvqa.checkpoints.device import is_device_lost
from sfvqa.errors import ItemTimeoutError, OutOfMemoryError, let_go
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.question import PromptOptions
from sfvqa.inference.video_qa import VideoQA
from sfvqa.wording import plural

_LONGEST_WAIT_SECONDS = 10.0  # so that little is lost where a batch is ended, and a slow model is seen to work
_MOST_PADDING = 1.25  # the longest video of a batch over the shortest, which is padded to it


@dataclass(eq=False)
class SeenVideo:
    """A video that was encoded whole; what that cost goes with the first answer, and then `encoded` is paid."""

    attempt: Attempt
    encoded: EncodedVideo
    prompt: PromptOptions


@dataclass(frozen=True, eq=False)
class Waiting:
    """A question about an encoded video."""

    question: Question
    video: SeenVideo


Outcome = tuple[Waiting, Answer | Failure]


class AnswerQueue:
    """Answers at most `batch_size` questions at a time, oldest first; memory that runs out halves the size for good."""

    def __init__(self, answerer: VideoQA, options: BatchOptions, watchdog: Watchdog) -> None:
        self.batch_size = options.batch_size
        self._answerer = answerer
        self._options = options
        self._watchdog = watchdog
        self._waiting: list[Waiting] = []
        self._oldest = 0.0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, video: SeenVideo, questions: Sequence[Question]) -> None:
        """Queue questions about a video."""
        if not self._waiting:
            self._oldest = time.monotonic()
        self._waiting += [Waiting(question, video) for question in questions]

    @property
    def is_due(self) -> bool:
        """Whether to answer before more videos are encoded: there are enough questions, or one has waited long."""
        has_waited = time.monotonic() - self._oldest > _LONGEST_WAIT_SECONDS
        return len(self._waiting) >= self.batch_size or (bool(self._waiting) and has_waited)

    def take(self) -> list[Waiting]:
        """Take the oldest question and those that fit it; a video's questions are split only if they must be."""
        alike = [each for each in self._waiting if self._is_alike(self._waiting[0], each)]
        batch, rest = alike[: self.batch_size], alike[self.batch_size :]
        last = batch[-1].video
        if rest and rest[0].video is last and batch[0].video is not last:
            batch = [each for each in batch if each.video is not last]
        self._waiting = [each for each in self._waiting if each not in batch]
        self._oldest = time.monotonic()
        return batch

    def answer(self, batch: Sequence[Waiting]) -> Iterator[Outcome]:
        """Answer what was taken, all together; each question that fails so is asked once more, alone.

        The first answer about a video has the video's cost in its timings. Raises only the loss of the device.
        """
        if len(batch) == 1:
            yield batch[0], self._answer_alone(batch[0])
            return
        together = self._answer_together(batch)
        if together is None:
            half = len(batch) // 2
            self.batch_size = min(self.batch_size, half)
            yield from self.answer(batch[:half])
            yield from self.answer(batch[half:])
            return
        for each, answer in zip(batch, together, strict=True):
            yield each, self._answer_alone(each) if answer is None else _outcome(answer)

    def _is_alike(self, one: Waiting, other: Waiting) -> bool:
        choices = self._options.choices_for
        if choices(one.question.item) != choices(other.question.item) or one.video.prompt != other.video.prompt:
            return False
        shorter, longer = sorted(len(each.video.encoded.visual_tokens.slow) for each in (one, other))
        return longer <= _MOST_PADDING * shorter

    def _answer_together(self, batch: Sequence[Waiting]) -> list[Answer | None] | None:
        """The answers that are whole: none if one question makes all of them fail; None if memory runs out."""
        try:
            return [None if _is_cut(answer) else answer for answer in self._ask(batch)]
        except (OutOfMemoryError, MemoryError) as error:
            let_go(error)
            return None
        except Exception as error:
            if is_device_lost(error):
                raise
            let_go(error)
            return [None] * len(batch)

    def _answer_alone(self, waiting: Waiting) -> Answer | Failure:
        try:
            (answer,) = self._ask([waiting])
        except Exception as error:
            if is_device_lost(error):
                raise
            let_go(error)
            return Failure.of(error)
        if not _is_cut(answer):
            return _outcome(answer)
        limit_seconds = self._options.item_timeout_seconds
        assert limit_seconds is not None  # nothing else cuts an answer
        return Failure.of(
            ItemTimeoutError(
                f"The answer was not finished within {plural(limit_seconds, 'second')}: "
                f"time ran out after {plural(answer.tokens.new, 'token')}.",
                "Allow more with --item-timeout, or fewer tokens with --max-new-tokens.",
            )
        )

    def _ask(self, batch: Sequence[Waiting]) -> list[Answer]:
        """Ask, and mark each video as paid that there is an answer about."""
        choices = self._options.choices_for(batch[0].question.item)
        first = {id(each.video): each for each in reversed(batch)}
        asked = []
        for each in batch:
            encoded = each.video.encoded
            asked.append((encoded if first[id(each.video)] is each else encoded.paid(), each.question.item.question))
        with self._watchdog.step("the answer was written", [each.question for each in batch]):
            answers = self._answerer.answer_batch(
                asked,
                self._options.generation_for(choices),
                prompt=batch[0].video.prompt,
                choices=choices,
                watch=self._stop_in_time(),
            )
        for each, answer in zip(batch, answers, strict=True):
            if first[id(each.video)] is each and not _is_cut(answer) and answer.error is None:
                each.video.encoded = each.video.encoded.paid()
        return answers

    def _stop_in_time(self) -> Callable[[list[str]], bool]:
        """A function that is called after every token, and so tells the watchdog of progress too."""
        limit_seconds = self._options.item_timeout_seconds
        deadline = None if limit_seconds is None else time.monotonic() + limit_seconds

        def stop(_pieces: list[str]) -> bool:
            self._watchdog.moved()
            return deadline is not None and time.monotonic() > deadline

        return stop


def _is_cut(answer: Answer) -> bool:
    return answer.finish_reason is FinishReason.INTERRUPTED and answer.error is None


def _outcome(answer: Answer) -> Answer | Failure:
    return answer if answer.error is None else Failure.of(answer.error)
