"""A conversation about one encoded video: every turn goes on from the keys and values of those before it.

The prompt of a turn is that of the whole conversation. What the KV cache holds of it already, as a rule all but the new
question, is not prefilled again; where the template or the tokenizer spells an answer otherwise than the model wrote
it, the turn begins there. So a turn always equals one prompt with the whole conversation in it.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.errors import PromptTooLongError, UsageError
from sfvqa.inference.answer import Answer, AnswerStream, ContextUse, FinishReason
from sfvqa.inference.answering import AnswerRun, Asked
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions
from sfvqa.inference.prompt import prompt_for, subtitle_budget
from sfvqa.inference.question import PromptOptions
from sfvqa.model import SlowAttention

if TYPE_CHECKING:
    from sfvqa.inference.prefill import KeptPrompt

_NEXT_QUESTION_TOKENS = 32  # what one is taken to need, to say beforehand that turns will go
_ANY_QUESTION = "?"


@dataclass(frozen=True)
class ChatTurn:
    """One question and what was answered, as far as it came."""

    question: str
    answer: Answer


class Chat:
    """Questions and answers about one video, or none, each knowing those before it.

    `context_tokens` bounds the conversation, by default the model's positions do; where it would not fit, the oldest
    turns drop, and the answer's warnings say so. A stream that is closed early leaves what came of the answer in the
    conversation; where nothing came the turn is not part of it. UsageError for options that a conversation cannot have.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        encoded: EncodedVideo | None,
        options: GenerationOptions | None = None,
        *,
        prompt: PromptOptions | None = None,
        context_tokens: int | None = None,
    ) -> None:
        self.encoded = encoded
        self.num_dropped = 0
        self._checkpoint = checkpoint
        self._options = options or GenerationOptions()
        self._turns: list[ChatTurn] = []
        self._kept: KeptPrompt | None = None
        self._stream: AnswerStream | None = None
        self._positions = int(checkpoint.model.config.decoder_config.max_position_embeddings)
        self._limit = _check_context(context_tokens, self._positions)
        self._prompt_options = prompt or PromptOptions()
        if self._options.slow_attention is not SlowAttention.ALWAYS:
            raise UsageError(
                "In a chat every text token looks at the slow tokens, answers too.", "Leave out slow_attention."
            )
        if self._prompt_options.subtitles is not None:  # the same in every turn, or no turn could go on from another
            budget = subtitle_budget(
                self._prompt_options,
                checkpoint.model.config.training_max_length,
                self._length(replace(self._prompt_options, subtitles=None, subtitle_tokens=None))
                + self._options.max_new_tokens,
            )
            self._prompt_options = replace(self._prompt_options, subtitle_tokens=max(budget, 1))

    @property
    def turns(self) -> tuple[ChatTurn, ...]:
        """Those that are still in the conversation, oldest first."""
        return tuple(self._turns)

    @property
    def num_turns(self) -> int:
        """How many these are."""
        return len(self.turns)

    @property
    def context(self) -> ContextUse:
        """How full the conversation is."""
        return ContextUse(self._length(self._prompt_options), self._limit)

    @property
    def will_drop(self) -> bool:
        """Whether a further turn, with an answer of `max_new_tokens`, would push the oldest one out."""
        return bool(self._turns) and self.context.room < _NEXT_QUESTION_TOKENS + self._options.max_new_tokens

    def ask(self, question: str) -> Answer:
        """Answer one more question. UsageError, PromptTooLongError, OutOfMemoryError."""
        stream = self.stream(question)
        for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str) -> AnswerStream:
        """The same piece by piece; what must drop has dropped when this returns, and is in the answer's warnings."""
        if self._stream is not None:
            self._stream.close()
        warnings = self._make_room(question)
        paid = bool(self._turns or self.num_dropped)
        run = AnswerRun(
            self._checkpoint,
            [Asked(self.encoded.paid() if self.encoded and paid else self.encoded, question, self._history)],
            self._options,
            prompt=self._prompt_options,
            kept=self._kept,
            keep=True,
            warnings=warnings,
        )
        self._stream = AnswerStream(self._remembered(run), lambda: run.answers()[0])
        return self._stream

    def release(self) -> None:
        """Free what was prefilled; the next turn prefills the conversation anew."""
        self._kept = None

    def reset(self) -> None:
        """Forget what was said; the video stays, and what was prefilled of it."""
        self.restore((), 0)

    def restore(self, turns: Sequence[ChatTurn], num_dropped: int) -> None:
        """Go back to what `turns` and `num_dropped` were before."""
        if self._stream is not None:
            self._stream.close()
        self._turns = list(turns)
        self.num_dropped = num_dropped

    @property
    def _history(self) -> tuple[tuple[str, str], ...]:
        return tuple((turn.question, turn.answer.text) for turn in self._turns)

    def _remembered(self, run: AnswerRun) -> Generator[list[str], None, None]:
        """The steps of a run, after which its turn is part of the conversation."""
        try:
            yield from run.steps()
        finally:
            self._kept = run.kept
            (answer,) = run.answers()
            has_come = answer.text or answer.finish_reason is not FinishReason.INTERRUPTED
            if has_come and answer.error is None:
                self._turns.append(ChatTurn(answer.question, answer))

    def _length(self, options: PromptOptions, question: str = _ANY_QUESTION, num_left_out: int = 0) -> int:
        """Tokens of the conversation, without its oldest turns, with a question at its end."""
        prompt = prompt_for(
            self._checkpoint.tokenizer,
            self.encoded,
            question,
            options,
            config=self._checkpoint.model.config,
            num_new_tokens=self._options.max_new_tokens,
            history=self._history[num_left_out:],
        )
        return len(prompt.token_ids)

    def _make_room(self, question: str) -> list[str]:
        """Drop the oldest turns until the question and its answer fit; the warning that says so, if any did."""
        room = self._limit - self._options.max_new_tokens
        count = 0
        while (length := self._length(self._prompt_options, question, count)) > room:
            if count == len(self._turns):
                raise PromptTooLongError(
                    f"The question takes {length:,} tokens, the video's among them, and its answer up to "
                    f"{self._options.max_new_tokens:,}: more than the {self._limit:,} that the conversation may take.",
                    "Ask a shorter question, allow fewer new tokens (--max-new-tokens), or look at fewer frames."
                    + (" --context allows more." if self._limit < self._positions else ""),
                )
            count += 1
        dropped = [turn.question for turn in self._turns[:count]]
        del self._turns[:count]
        self.num_dropped += count
        if not dropped:
            return []
        what = f"“{dropped[0]}”" if len(dropped) == 1 else f"“{dropped[0]}” to “{dropped[-1]}”"
        turns = "The oldest turn was" if len(dropped) == 1 else f"The {len(dropped)} oldest turns were"
        return [f"{turns} dropped from the conversation, which may take {self._limit:,} tokens: {what}."]


def _check_context(context_tokens: int | None, positions: int) -> int:
    if context_tokens is not None and not 1 <= context_tokens <= positions:
        raise UsageError(
            f"A context of {context_tokens:,} tokens was asked for, and the model has {positions:,} positions.",
            f"Ask for 1 to {positions}.",
        )
    return context_tokens or positions
