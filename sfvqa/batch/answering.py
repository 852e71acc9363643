"""Questions about one encoded video → an answer or an error each; what fails in a batch is asked again alone."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from sfvqa.batch.options import BatchOptions
from sfvqa.batch.video_ahead import Question
from sfvqa.errors import ItemTimeoutError
from sfvqa.inference.answer import Answer, FinishReason
from sfvqa.inference.device import is_device_lost
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.question_answerer import VideoQuestionAnswerer, never

Outcome = tuple[Question, Answer | Exception]


def answer_all(
    answerer: VideoQuestionAnswerer,
    encoded: EncodedVideo,
    questions: Sequence[Question],
    prompt: PromptOptions,
    options: BatchOptions,
) -> Iterator[Outcome]:
    """Answer the questions about a video, `options.batch_size` at a time, and say of each what became of it.

    The first answer's timings have the cost of the video in them. Raises what no further item can get over.
    """
    asker = _Asker(answerer, prompt, options)
    by_choices = sorted(questions, key=lambda each: options.choices_for(each.item) or ())
    for _, alike in groupby(by_choices, key=lambda each: options.choices_for(each.item)):
        left = list(alike)
        while left:
            batch, left = left[: options.batch_size], left[options.batch_size :]
            for question, outcome in asker.answer(encoded, batch):
                if isinstance(outcome, Answer):
                    encoded = encoded.paid()
                yield question, outcome


class _Asker:
    def __init__(self, answerer: VideoQuestionAnswerer, prompt: PromptOptions, options: BatchOptions) -> None:
        self._answerer = answerer
        self._prompt = prompt
        self._options = options

    def answer(self, encoded: EncodedVideo, batch: Sequence[Question]) -> Iterator[Outcome]:
        """All together, and what came to nothing so each alone."""
        together = self._answer_together(encoded, batch) if len(batch) > 1 else [None]
        is_paid = any(together)
        for question, answer in zip(batch, together, strict=True):
            if answer is None:
                outcome = self._answer_alone(encoded.paid() if is_paid else encoded, question)
                is_paid = is_paid or isinstance(outcome, Answer)
                yield question, outcome
            else:
                yield question, answer

    def _answer_together(self, encoded: EncodedVideo, batch: Sequence[Question]) -> list[Answer | None]:
        """The answers that are whole; none where one question makes all of them fail."""
        try:
            answers = self._ask(encoded, batch)
        except Exception as error:
            if is_device_lost(error):
                raise
            return [None] * len(batch)  # only when this is left is the traceback gone, and with it what it held
        return [None if answer.finish_reason is FinishReason.INTERRUPTED else answer for answer in answers]

    def _answer_alone(self, encoded: EncodedVideo, question: Question) -> Answer | Exception:
        try:
            (answer,) = self._ask(encoded, [question])
        except Exception as error:
            if is_device_lost(error):
                raise
            return error
        if answer.finish_reason is FinishReason.INTERRUPTED:
            return ItemTimeoutError(
                f"The answer was not written within {self._options.item_timeout_seconds:g} seconds: "
                f"time ran out after {answer.tokens.new} tokens.",
                "Allow more with --item-timeout, or fewer tokens with --max-new-tokens.",
            )
        return answer

    def _ask(self, encoded: EncodedVideo, batch: Sequence[Question]) -> list[Answer]:
        choices = self._options.choices_for(batch[0].item)
        return self._answerer.answer_batch(
            [(encoded if place == 0 else encoded.paid(), each.item.question) for place, each in enumerate(batch)],
            self._options.generation_for(choices),
            prompt=self._prompt,
            choices=choices,
            stop=self._stop_in_time(),
        )

    def _stop_in_time(self) -> Callable[[], bool]:
        limit_seconds = self._options.item_timeout_seconds
        if limit_seconds is None:
            return never
        deadline = time.monotonic() + limit_seconds
        return lambda: time.monotonic() > deadline
