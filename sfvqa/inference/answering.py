"""Questions about encoded videos → answers, streaming or in a batch: the same steps for one question and for many."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

from sfvqa.errors import PromptTooLongError
from sfvqa.inference.answer import (
    Answer,
    AnswerSettings,
    ChoiceProbability,
    FinishReason,
    SampledFrames,
    Timings,
    TokenCounts,
)
from sfvqa.inference.checkpoint import LoadedCheckpoint
from sfvqa.inference.choices import choice_token_ids, compare, score_choices, unlikely_warning
from sfvqa.inference.detokenize import IncrementalDetokenizer
from sfvqa.inference.device import free_memory_bytes, memory_errors, peak_memory_bytes
from sfvqa.inference.encoding import EncodedVideo
from sfvqa.inference.generation import (
    GeneratedToken,
    GenerationInputs,
    GenerationOptions,
    Prefilled,
    generate_tokens,
    prefill,
)
from sfvqa.inference.prompt_options import PromptOptions
from sfvqa.inference.prompting import BuiltPrompt, prompt_for
from sfvqa.inference.question import check_choices
from sfvqa.inference.remedy import what_should_fit
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.registry import QuantizationName


class AnswerStream:
    """Pieces of an answer as they come; `answer` is what there is so far, whole once the pieces are at an end.

    Leaving early (`close`, the end of a `with` block, an exception such as Ctrl-C) keeps what came: `answer` then
    says `interrupted`.
    """

    def __init__(self, pieces: Iterator[str], answer_so_far: Callable[[], Answer]) -> None:
        self._pieces = pieces
        self._answer_so_far = answer_so_far

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def answer(self) -> Answer:
        """The answer so far."""
        return self._answer_so_far()

    def close(self) -> None:
        """Stop generating and free what it holds; harmless when it is over already."""
        if close := getattr(self._pieces, "close", None):
            close()


@dataclass(eq=False)
class _Row:
    """One answer while it is being made."""

    encoded: EncodedVideo | None
    question: str
    prompt: BuiltPrompt
    detokenizer: IncrementalDetokenizer
    pieces: list[str] = field(default_factory=list)
    num_new_tokens: int = 0
    finish_reason: FinishReason = FinishReason.INTERRUPTED
    choices: tuple[ChoiceProbability, ...] = ()

    def take(self, token: GeneratedToken | None) -> str:
        """Add one token and return the text it completes."""
        if token is None:
            return ""
        self.num_new_tokens += 1
        piece = "" if token.is_end else self.detokenizer.push(token.token_id)
        if token.finish_reason is not None:
            self.finish_reason = token.finish_reason
            piece += self.detokenizer.finish()
        self.pieces.append(piece)
        return piece

    def choose(self, choices: tuple[ChoiceProbability, ...], token_ids: Sequence[Sequence[int]]) -> str:
        """Take the likeliest choice for the answer and return it; of equals the first."""
        best = max(range(len(choices)), key=lambda place: choices[place].probability)
        self.choices, self.num_new_tokens, self.finish_reason = choices, len(token_ids[best]), FinishReason.CHOICE
        self.pieces.append(choices[best].text)
        return choices[best].text


class AnswerRun:
    """Answers a batch of questions step by step; one question is a batch of one.

    With `choices` each answer is the likeliest of them, and comes in one piece, a question after the other.
    Prompts are built and checked at once: UsageError for an empty question or choices that are none,
    PromptTooLongError when prompt and new tokens exceed the model's positions. What is generated is padded on the left
    and equals what each question alone would give.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        questions: Sequence[tuple[EncodedVideo | None, str]],
        options: GenerationOptions,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
    ) -> None:
        device = checkpoint.model.device
        self._checkpoint = checkpoint
        self._options = options
        self._prompt_options = prompt or PromptOptions()
        self._choices = () if choices is None else check_choices(choices)
        self._choice_ids = choice_token_ids(checkpoint.tokenizer, self._choices) if self._choices else []
        if self._choices:
            options.check_for_choices()
        self._prefill_watch, self._first_token_watch, self._decode_watch = (Stopwatch(device) for _ in range(3))
        with self._prefill_watch:
            self._rows = [self._prepare(encoded, question) for encoded, question in questions]

    def steps(self) -> Generator[list[str], None, None]:
        """Yield the text each step adds to every answer, until all have ended."""
        if self._choices:
            yield from self._choosing_steps()
            return
        prefilled = self._prefill(self._rows)
        tokens = generate_tokens(self._checkpoint.model, prefilled, self._options, self._checkpoint.end_token_ids)
        del prefilled  # the cache lives in the generator alone, and goes with it
        watch = self._first_token_watch
        while True:
            with watch, memory_errors("writing the answer"):
                step = next(tokens, None)
            if step is None:
                return
            watch = self._decode_watch
            yield [row.take(token) for row, token in zip(self._rows, step, strict=True)]

    def _remedy(self) -> Callable[[], str]:
        """What to do when the prompts are too much, by the memory that is free before they are read."""
        model = self._checkpoint.model
        return partial(
            what_should_fit,
            model.config,
            max((len(row.encoded.indices) if row.encoded else 1 for row in self._rows), default=1),
            device=model.device,
            dtype=model.dtype,
            quantization=QuantizationName(self._checkpoint.quantization.value),
            free_bytes=free_memory_bytes(model.device),
            is_loaded=True,
        )

    def _choosing_steps(self) -> Generator[list[str], None, None]:
        """Compare the choices for one question after the other."""
        for row in self._rows:
            prefilled = self._prefill([row])
            with self._first_token_watch, memory_errors("comparing the choices"):
                scores = score_choices(
                    self._checkpoint.model, prefilled, self._choice_ids, self._checkpoint.end_token_ids
                )
            chosen = row.choose(compare(self._choices, scores), self._choice_ids)
            yield [chosen if other is row else "" for other in self._rows]

    def _prefill(self, rows: Sequence[_Row]) -> Prefilled:
        model = self._checkpoint.model
        with self._prefill_watch, memory_errors("reading the prompt", self._remedy()):
            inputs = GenerationInputs.pad_left(
                [row.prompt.token_ids for row in rows],
                [row.encoded.visual_tokens if row.encoded else None for row in rows],
                model.device,
            )
            return prefill(model, inputs, self._options.slow_attention)

    def answers(self) -> list[Answer]:
        """What there is so far, an Answer a question."""
        return [self._answer(row) for row in self._rows]

    def _prepare(self, encoded: EncodedVideo | None, question: str) -> _Row:
        tokenizer = self._checkpoint.tokenizer
        prompt = prompt_for(
            tokenizer,
            encoded,
            question,
            self._prompt_options,
            trained_length=self._checkpoint.model.config.training_max_length,
            num_new_tokens=self._num_wanted,
        )
        self._check_length(len(prompt.token_ids))
        return _Row(encoded, question, prompt, IncrementalDetokenizer(tokenizer))

    @property
    def _num_wanted(self) -> int:
        """Positions that an answer may take."""
        return max(map(len, self._choice_ids)) if self._choice_ids else self._options.max_new_tokens

    def _check_length(self, prompt_length: int) -> None:
        positions = int(self._checkpoint.model.config.decoder_config.max_position_embeddings)
        wanted = self._num_wanted
        if prompt_length + wanted > positions:
            room = positions - prompt_length
            shorter = (
                f", or at most {room} new tokens (--max-new-tokens {room})" if room > 0 and not self._choices else ""
            )
            raise PromptTooLongError(
                f"The prompt takes {prompt_length} tokens and the answer up to {wanted}: "
                f"{prompt_length + wanted - positions} more than the model's {positions} positions.",
                f"Use fewer frames, a shorter question or fewer subtitles{shorter}.",
            )

    def _answer(self, row: _Row) -> Answer:
        encoded = row.encoded
        return Answer(
            text="".join(row.pieces),
            question=row.question,
            video=str(encoded.video.path) if encoded else None,
            model=self._checkpoint.location.name,
            revision=self._checkpoint.revision,
            finish_reason=row.finish_reason,
            frames=SampledFrames(encoded.indices, encoded.timestamps_seconds, encoded.strategy)
            if encoded
            else SampledFrames(),
            tokens=TokenCounts(
                prompt=len(row.prompt.token_ids),
                fast=len(encoded.visual_tokens.fast) if encoded else 0,
                slow=len(encoded.visual_tokens.slow) if encoded else 0,
                new=row.num_new_tokens,
            ),
            timings=self._timings(row),
            peak_memory_bytes=peak_memory_bytes(self._checkpoint.model.device),
            warnings=(
                *self._checkpoint.warnings,
                *(encoded.warnings if encoded else ()),
                *row.prompt.warnings,
                *(unlikely_warning(row.choices) if row.choices else ()),
                *self._length_warnings(row),
            ),
            settings=self._settings(encoded),
            choices=row.choices,
            subtitles=row.prompt.subtitles,
        )

    def _length_warnings(self, row: _Row) -> list[str]:
        trained, used = (
            self._checkpoint.model.config.training_max_length,
            len(row.prompt.token_ids) + row.num_new_tokens,
        )
        if trained is None or used <= trained:
            return []
        return [f"Prompt and answer take {used} tokens; the model was trained with at most {trained}."]

    def _timings(self, row: _Row) -> Timings:
        read_seconds = row.encoded.read_seconds if row.encoded else 0.0
        encode_seconds = row.encoded.encode_seconds if row.encoded else 0.0
        overlap_seconds = row.encoded.overlap_seconds if row.encoded else 0.0
        prefill_seconds, decode_seconds = self._prefill_watch.seconds, self._decode_watch.seconds
        seeing_seconds = read_seconds + encode_seconds - overlap_seconds
        ttft_seconds = seeing_seconds + prefill_seconds + self._first_token_watch.seconds
        has_speed = row.num_new_tokens > 1 and decode_seconds > 0
        return Timings(
            load_seconds=self._checkpoint.load_seconds,
            read_seconds=read_seconds,
            encode_seconds=encode_seconds,
            overlap_seconds=overlap_seconds,
            prefill_seconds=prefill_seconds,
            ttft_seconds=ttft_seconds,
            decode_seconds=decode_seconds,
            total_seconds=ttft_seconds + decode_seconds,
            tokens_per_second=(row.num_new_tokens - 1) / decode_seconds if has_speed else None,
        )

    def _settings(self, encoded: EncodedVideo | None) -> AnswerSettings:
        model, options = self._checkpoint.model, self._options
        return AnswerSettings(
            quantization=self._checkpoint.quantization.value,
            random_weights=self._checkpoint.random_weights,
            attention=self._checkpoint.attention.value,
            slow_attention=options.slow_attention.value,
            device=self._checkpoint.device_names,
            dtype=str(model.dtype).removeprefix("torch."),
            reader=encoded.reader if encoded else None,
            crop=encoded.crop.value if encoded else None,
            temperature=options.temperature,
            top_p=options.top_p,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            system=self._prompt_options.system,
            template=self._prompt_options.template,
        )
