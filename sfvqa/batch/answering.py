"""Questions about videos that were seen → an answer or an error each; what fails in a batch is asked again alone."""

import time
from collections.abc import Callable, Iterator, Sequence

from sfvqa.batch.options import BatchOptions
from sfvqa.batch.record import Failure
from sfvqa.batch.waiting import Waiting
from sfvqa.batch.watchdog import Watchdog
from sfvqa.errors import ItemTimeoutError, OutOfMemoryError
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.device import is_device_lost
from sfvqa.inference.question_answerer import VideoQuestionAnswerer
from sfvqa.wording import plural

Outcome = tuple[Waiting, Answer | Failure]


class Answering:
    """Answers batches of at most `batch_size` questions, which is halved each time memory runs out over one."""

    def __init__(self, answerer: VideoQuestionAnswerer, options: BatchOptions, watchdog: Watchdog) -> None:
        self.batch_size = options.batch_size
        self._watchdog = watchdog
        self._answerer = answerer
        self._options = options

    def answer(self, batch: Sequence[Waiting]) -> Iterator[Outcome]:
        """All together, and what came to nothing so each alone; the choices and prompts of all must be alike.

        The first answer about a video has its cost in the timings. Raises what no further item can get over.
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
            yield each, answer or self._answer_alone(each)

    def _answer_together(self, batch: Sequence[Waiting]) -> list[Answer | None] | None:
        """The answers that are whole; none where one question makes all of them fail, None where memory runs out."""
        try:
            return [None if _is_cut(answer) else answer for answer in self._ask(batch)]
        except (OutOfMemoryError, MemoryError):
            return None
        except Exception as error:
            if is_device_lost(error):
                raise
            return [None] * len(batch)  # only when this is left is the traceback gone, and with it what it held

    def _answer_alone(self, waiting: Waiting) -> Answer | Failure:
        try:
            (answer,) = self._ask([waiting])
        except Exception as error:
            if is_device_lost(error):
                raise
            return Failure.of(error)
        if not _is_cut(answer):
            return answer
        limit_seconds = self._options.item_timeout_seconds
        assert limit_seconds is not None  # nothing else cuts an answer
        too_late = ItemTimeoutError(
            f"The answer was not written within {plural(limit_seconds, 'second')}: "
            f"time ran out after {plural(answer.tokens.new, 'token')}.",
            "Allow more with --item-timeout, or fewer tokens with --max-new-tokens.",
        )
        return Failure.of(too_late)

    def _ask(self, batch: Sequence[Waiting]) -> list[Answer]:
        """Ask, and have each video paid that there is an answer about."""
        choices = self._options.choices_for(batch[0].question.item)
        first = {id(each.video): each for each in reversed(batch)}
        asked = [
            (
                each.video.encoded if first[id(each.video)] is each else each.video.encoded.paid(),
                each.question.item.question,
            )
            for each in batch
        ]
        with self._watchdog.step("the answer was written", [each.question for each in batch]):
            answers = self._answerer.answer_batch(
                asked,
                self._options.generation_for(choices),
                prompt=batch[0].video.prompt,
                choices=choices,
                stop=self._stop_in_time(),
            )
        for each, answer in zip(batch, answers, strict=True):
            if first[id(each.video)] is each and not _is_cut(answer):
                each.video.encoded = each.video.encoded.paid()
        return answers

    def _stop_in_time(self) -> Callable[[], bool]:
        """Asked after every token, by which the watchdog knows that it gets on."""
        limit_seconds = self._options.item_timeout_seconds
        deadline = None if limit_seconds is None else time.monotonic() + limit_seconds

        def stop() -> bool:
            self._watchdog.moved()
            return deadline is not None and time.monotonic() > deadline

        return stop


def _is_cut(answer: Answer) -> bool:
    return answer.finish_reason is FinishReason.INTERRUPTED
