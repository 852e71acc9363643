"""Questions about encoded videos → answers, streaming or in a batch: the same steps for one question and for many."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property, partial

from sfvqa.checkpoints.device import free_memory_bytes, memory_errors, peak_memory_bytes
from sfvqa.checkpoints.load import LoadedCheckpoint
from sfvqa.checkpoints.memory import static_room
from sfvqa.checkpoints.plan import what_should_fit
from sfvqa.errors import CheckpointError, OutOfMemoryError, PromptTooLongError, SchemaNotMetError
from sfvqa.inference.answer import (
    Answer,
    AnswerSettings,
    AnswerStream,
    FinishReason,
    FrameEvidence,
    SampledFrames,
    Timings,
    TokenCounts,
)
from sfvqa.inference.answer_row import AnswerGroup, AnswerRow, IncrementalDetokenizer, TextBefore
from sfvqa.inference.choices import choice_token_ids, compare, score_choices, unlikely_warning
from sfvqa.inference.encode import EncodedVideo
from sfvqa.inference.engine import GenerationOptions, Step, generate_tokens
from sfvqa.inference.evidence import NOTHING_LOOKED_AT, SlowAttentionRecorder, num_question_tokens, weigh_frames
from sfvqa.inference.prefill import KeptPrompt, Prefilled, prefill_one, prefill_together
from sfvqa.inference.prompt import around_answer, prompt_for
from sfvqa.inference.question import PromptOptions, check_choices, check_looks
from sfvqa.inference.schema import JsonSchema, SchemaGuide
from sfvqa.model import RecordedSteps, SlowAttention, SlowFastCache
from sfvqa.model.decode_step import check_static_decode, decodes_static, why_not_static
from sfvqa.registry import QuantizationName
from sfvqa.wording import plural


@dataclass(frozen=True, eq=False)
class Asked:
    """A question about an encoded video or none, with the turns before it, a question and an answer each."""

    encoded: EncodedVideo | None
    question: str
    history: tuple[tuple[str, str], ...] = ()


class AnswerRun:
    """Answers a batch of questions step by step; one question is a batch of one.

    With `choices` each answer is the likeliest of them, and comes in one piece, a question after the other.
    Prompts are built and checked at once: UsageError for an empty question or choices that are none,
    PromptTooLongError when prompt and new tokens exceed the model's positions. Each answer is what its question alone
    would give, up to rounding: in 16 bits, of two tokens that are almost as likely a batch may choose the other one.
    Questions about one video share the prefill of what their prompts begin with. A single question goes on from what
    was `kept` of another prompt, and with `keep` leaves `kept` for the next one; several go on from the `beginnings`
    that earlier batches left there, and leave theirs.
    """

    def __init__(
        self,
        checkpoint: LoadedCheckpoint,
        questions: Sequence[Asked],
        options: GenerationOptions,
        *,
        prompt: PromptOptions | None = None,
        choices: Sequence[str] | None = None,
        kept: KeptPrompt | None = None,
        keep: bool = False,
        beginnings: list[KeptPrompt] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        device = checkpoint.model.device
        self._checkpoint = checkpoint
        self._options = options
        self._prompt_options = prompt or PromptOptions()
        self._choices = () if choices is None else check_choices(choices)
        self._lead = ""
        with suppress(CheckpointError):  # a template may refuse earlier turns, and still ask one question
            self._lead, _ = around_answer(checkpoint.tokenizer, checkpoint.model.config.family)
        self._choice_ids = choice_token_ids(checkpoint.tokenizer, self._choices, self._lead) if self._choices else []
        if self._choices:
            options.check_for_choices()
        if options.evidence:
            check_looks(checkpoint.location.name, checkpoint.model.config.hybrid_layers)
        self._recorded, self._is_static = self._recorded_steps(), False
        self._group = group = AnswerGroup(len(questions), device)
        self._kept, self._beginnings, self._warnings = kept, beginnings, warnings
        self._running = [True] * len(questions)
        self._joining: list[AnswerRow] = []
        self._guide = None if options.schema is None else self._guide_by(options.schema, len(questions))
        self._free_bytes = free_memory_bytes(device)
        self._keep = keep or bool(self._choices and len(questions) > 1)  # choices are compared for one after the other
        self._cache: SlowFastCache | None = None
        with group.prefill_watch:
            self._rows = dict(enumerate(self._prepare(asked, group) for asked in questions))  # by their places
        self._recorder = (
            SlowAttentionRecorder(checkpoint.model, [row.visual_tokens for row in self._rows.values()])
            if options.evidence
            else None
        )

    def steps(self) -> Generator[list[str], None, None]:
        """Yield the text that each step adds to every answer, until all have ended; see `end`."""
        try:
            yield from self._choosing_steps() if self._choices else self._writing_steps()
        except OutOfMemoryError:
            self._checkpoint.recorded_steps.clear()
            raise

    def end(self, place: int) -> None:
        """Give a question no more tokens, from any thread: what came of its answer stays, `interrupted` if it was not
        over. The others go on; where none is left the run ends.
        """
        self._running[place] = False

    def is_over(self, place: int) -> bool:
        """Whether no more comes of the answer to a question: those of the others may take longer."""
        return not self._running[place]

    def forget(self, place: int) -> None:
        """Let go of a question that is over, and whose answer was taken."""
        del self._rows[place]
        if self._guide is not None:
            self._guide.forget(place)

    @cached_property
    def can_be_joined(self) -> bool:
        """Whether other questions can join those being answered: what is recorded, or watched, has a fixed size.

        Nor can the rows be parted of a cache that forgets, of a sliding window.
        """
        # A logits processor sees what was said as one tensor.
        has_fixed_size = self._recorded is not None or self._options.logits_processor is not None
        is_alike = SlowFastCache(self._checkpoint.model.config).is_forkable
        return is_alike and not (self._choices or has_fixed_size or self._recorder)

    def join(self, questions: Sequence[Asked]) -> None:
        """Have more questions answered, from the next of `steps` on, in the places behind those there are.

        Raises what is wrong with them, and answers none of them then.
        """
        group = AnswerGroup(len(questions) + sum(self._running), self._checkpoint.model.device)
        with group.prefill_watch:
            rows = [self._prepare(asked, group) for asked in questions]
        self._joining += rows
        self._rows |= enumerate(rows, len(self._running))
        self._running += [True] * len(rows)
        if self._guide is not None:
            self._guide.add(len(rows))

    def _writing_steps(self) -> Generator[list[str], None, None]:
        if not any(self._running):
            return
        prefilled = self._prefill_together([*self._rows.values()]) if len(self._rows) > 1 else self._prefill(0)
        tokens = generate_tokens(
            self._checkpoint.model,
            prefilled,
            self._options,
            self._checkpoint.end_token_ids,
            self._begin_recorded,
            self._running,
            self._guide,
            may_leave=self.can_be_joined,
        )
        del prefilled  # unless it is kept, the cache lives in the generator alone, and goes with it
        while True:
            live, writing = self._live(), list(map(int, self._running)) if self._recorder else []
            try:
                with (
                    ExitStack() as waits,
                    memory_errors("writing the answer"),
                    self._recording(range(len(writing)), writing),
                ):
                    _begin_waits([row for row in map(self._rows.__getitem__, live) if row not in self._joining], waits)
                    step = tokens.send(partial(self._prefill_joining, waits) if self._joining else None)
            except StopIteration:
                return
            pieces = [""] * len(step)
            for place in live:
                row = self._rows[place]
                row.group.has_begun = True
                pieces[place] = row.take(step[place])
                if row.is_over:
                    self.end(place)
            yield pieces

    def _live(self) -> list[int]:
        """The places of the answers that are being written, or are about to be."""
        return [place for place, runs in enumerate(self._running) if runs]

    def _prefill_joining(self, waits: ExitStack) -> Prefilled:
        """What those leave that have come since the last step, while the others wait."""
        if self._keep:  # of a question that was alone until now
            self._keep, row = False, self._rows[0]
            kept = self._cache and KeptPrompt.of(row.prompt.token_ids, row.visual_tokens, self._cache)
            if self._beginnings is not None:
                self._beginnings += filter(None, [kept or self._kept])
            self._cache = self._kept = None
        joining, self._joining = self._joining, []
        prefilled = self._prefill_together(joining)
        _begin_waits(joining, waits)
        return prefilled

    def _recorded_steps(self) -> RecordedSteps | None:
        """Those of this model, where its tokens are decoded by them; UsageError where they are asked for in vain."""
        checkpoint, options = self._checkpoint, self._options
        against = why_not_static(
            attention=checkpoint.attention, quantization=checkpoint.quantization, evidence=options.evidence
        )
        if against is None and not RecordedSteps.is_possible(checkpoint.model):
            against = (
                "The model's steps have no fixed size: it is spread over several devices, uses a sliding window, "
                "scales its rotary positions as the text grows, or has a decoder that no such step is written for."
            )
        check_static_decode(options.static_decode, against)
        is_static = not self._choices and decodes_static(options.static_decode, against, checkpoint.model.device)
        return checkpoint.recorded_steps if is_static else None

    def _begin_recorded(self, state: Prefilled, num_steps: int) -> Step | None:
        """Recorded steps, where the answer is to be written by them and no other answer is just now."""
        if self._recorded is None:
            return None
        room = static_room(state.attention_mask.shape[1] + num_steps)
        step = self._recorded.begin(self._checkpoint.model, state.cache, state.attention_mask, room)
        self._is_static = step is not None
        return step

    def stream(self) -> AnswerStream:
        """The answer to a single question, piece by piece."""
        return AnswerStream(self.steps(), lambda: self.answers()[0])

    def _guide_by(self, schema: JsonSchema, num_answers: int) -> SchemaGuide:
        checkpoint = self._checkpoint
        vocabulary_size = checkpoint.model.config.decoder_config.vocab_size
        return SchemaGuide(schema, checkpoint.tokenizer, checkpoint.end_token_ids, vocabulary_size, num_answers)

    def _what_should_fit(self) -> str:
        """What to do when the prompts are too much, by the memory that was free before they were read."""
        model = self._checkpoint.model
        return what_should_fit(
            model.config,
            max((len(row.encoded.indices) if row.encoded else 1 for row in self._rows.values()), default=1),
            device=model.device,
            dtype=model.dtype,
            quantization=QuantizationName(self._checkpoint.quantization.value),
            free_bytes=self._free_bytes,
            is_loaded=True,
        )

    def _choosing_steps(self) -> Generator[list[str], None, None]:
        """Compare the choices for one question after the other, each going on from the prompt before it."""
        for place in self._live():
            if not self._running[place]:  # by now
                continue
            row = self._rows[place]
            prefilled = self._prefill(place)
            with row.group.first_token_watch, memory_errors("comparing the choices"):
                scores = score_choices(
                    self._checkpoint.model, prefilled, self._choice_ids, self._checkpoint.end_token_ids
                )
            chosen = row.choose(compare(self._choices, scores), self._choice_ids)
            if self._recorder is not None:  # once more, over the chosen one: a pass over its tokens but the last
                with row.group.first_token_watch, self._recording([place], [len(row.new_ids) - 1]):
                    score_choices(self._checkpoint.model, prefilled, [row.new_ids], self._checkpoint.end_token_ids)
            if self._cache is not None:  # scoring leaves it as the prompt did
                self._kept = KeptPrompt.of(row.prompt.token_ids, row.visual_tokens, self._cache)
            self.end(place)
            yield [chosen if other == place else "" for other in range(len(self._running))]

    def _prefill(self, place: int) -> Prefilled:
        row = self._rows[place]
        model, ids = self._checkpoint.model, row.prompt.token_ids
        with (
            row.group.prefill_watch,
            memory_errors("reading the prompt", self._what_should_fit),
            self._recording_ends([place]),
        ):
            prefilled, row.num_reused = prefill_one(model, ids, row.visual_tokens, self._kept, row.num_last)
            self._kept = None
            if self._options.slow_attention is SlowAttention.PREFILL:
                self._kept = KeptPrompt.of(ids, row.visual_tokens, prefilled.cache) if self._keep else None
                prefilled.cache.forget_slow()
            elif self._keep:
                self._cache = prefilled.cache
        return prefilled

    def _prefill_together(self, rows: Sequence[AnswerRow]) -> Prefilled:
        with rows[0].group.prefill_watch, memory_errors("reading the prompts", self._what_should_fit):
            prefilled, num_reused = prefill_together(
                self._checkpoint.model,
                [row.prompt.token_ids for row in rows],
                [row.visual_tokens for row in rows],
                [row.num_last for row in rows],
                self._recording_ends,
                self._beginnings,
            )
            if self._options.slow_attention is SlowAttention.PREFILL:
                prefilled.cache.forget_slow()
        for row, count in zip(rows, num_reused, strict=True):
            row.num_reused = count
        return prefilled

    def _recording(self, rows: Sequence[int], num_last: Sequence[int]) -> AbstractContextManager[None]:
        return nullcontext() if self._recorder is None else self._recorder.recording(rows, num_last)

    def _recording_ends(self, rows: Sequence[int]) -> AbstractContextManager[None]:
        """Around the pass over the ends of these rows' prompts."""
        return self._recording(rows, [self._rows[row].num_last for row in rows] if self._recorder else [])

    @property
    def kept(self) -> KeptPrompt | None:
        """Of a run of one question that was asked to `keep`: its prompt and as much of the answer as can be gone on
        from. Where nothing came of the run, what was kept before it.
        """
        if self._cache is None:
            return self._kept
        row = self._rows[0]
        return KeptPrompt.of([*row.prompt.token_ids, *row.new_ids], row.visual_tokens, self._cache)

    def answers(self) -> list[Answer]:
        """What there is so far, an Answer a question."""
        return list(map(self.answer, self._rows))

    def _prepare(self, asked: Asked, group: AnswerGroup) -> AnswerRow:
        tokenizer = self._checkpoint.tokenizer
        prompt = prompt_for(
            tokenizer,
            asked.encoded,
            asked.question,
            self._prompt_options,
            history=asked.history,
            config=self._checkpoint.model.config,
            num_new_tokens=self._num_wanted,
        )
        self._check_length(len(prompt.token_ids))
        row = AnswerRow(
            asked.encoded,
            asked.question,
            group,
            prompt,
            IncrementalDetokenizer(tokenizer),
            TextBefore(self._options.stop),
            self._options.stop_when,
            self._lead,
        )
        if self._options.evidence and asked.encoded and not self._writing_looks:
            row.num_last = num_question_tokens(prompt)
        return row

    @property
    def _writing_looks(self) -> bool:
        """Whether the answer is written, by positions that look at the slow tokens."""
        return not self._choices and self._options.slow_attention is SlowAttention.ALWAYS

    @property
    def _num_wanted(self) -> int:
        """Positions that an answer may take."""
        return max(map(len, self._choice_ids)) if self._choice_ids else self._options.max_new_tokens

    def _check_length(self, prompt_length: int) -> None:
        positions = int(self._checkpoint.model.config.decoder_config.max_position_embeddings)
        wanted = self._num_wanted
        if prompt_length + wanted > positions:
            room = positions - prompt_length
            fewer = f", or at most {plural(room, 'new token')} (--max-new-tokens {room})"
            shorter = fewer if room > 0 and not self._choices else ""
            raise PromptTooLongError(
                f"The prompt takes {prompt_length:,} tokens and the answer up to {wanted:,}: "
                f"{prompt_length + wanted - positions:,} more than the model's {positions:,} positions.",
                f"Use fewer frames, a shorter question or fewer subtitles{shorter}.",
            )

    def _fields(self, place: int, row: AnswerRow) -> tuple[object, SchemaNotMetError | None]:
        """The value of an answer by a schema, or why it has none."""
        if self._guide is None or self._options.schema is None:
            return None, None
        ending = self._ending(place)
        if ending is FinishReason.LENGTH:
            return None, SchemaNotMetError(
                f"The answer was cut at {plural(len(row.new_ids), 'new token')}, before it was whole by its schema.",
                "Allow more (--max-new-tokens), or bound texts and lists in the schema (maxLength, maxItems).",
            )
        reason = self._guide.troubles.get(place)
        if not reason and ending is FinishReason.STOP:
            try:
                return self._options.schema.parse(row.text), None
            except ValueError as invalid:
                reason = str(invalid)
        return None, SchemaNotMetError(
            f"The answer could not be written by its schema: {reason}.", "Simplify the schema."
        ) if reason else None

    def _ending(self, place: int) -> FinishReason:
        """Why an answer ends: one that is whole by its schema is not cut, though its end token had no room."""
        row = self._rows[place]
        if row.finish_reason is not FinishReason.LENGTH or self._guide is None:
            return row.finish_reason
        may_go_on = row.text.strip()[-1:].isdigit()  # a number, the only JSON that could be longer
        is_whole = not may_go_on and self._guide.is_whole_with(place, row.new_ids[-1])
        return FinishReason.STOP if is_whole else FinishReason.LENGTH

    def _evidence(self, place: int) -> tuple[FrameEvidence, ...] | None:
        if self._recorder is None:
            return None
        encoded = self._rows[place].encoded
        return weigh_frames(encoded, self._recorder.of_row(place)) if encoded else ()

    def answer(self, place: int) -> Answer:
        """What there is so far of one."""
        row = self._rows[place]
        encoded, evidence = row.encoded, self._evidence(place)
        fields, error = self._fields(place, row)
        return Answer(
            text=row.text,
            fields=fields,
            error=error,
            question=row.question,
            video=str(encoded.video.path) if encoded else None,
            model=self._checkpoint.location.name,
            revision=self._checkpoint.revision,
            finish_reason=self._ending(place),
            frames=SampledFrames(encoded.indices, encoded.timestamps_seconds, encoded.strategy)
            if encoded
            else SampledFrames(),
            tokens=TokenCounts(
                prompt=len(row.prompt.token_ids),
                fast=len(encoded.visual_tokens.fast) if encoded else 0,
                slow=len(encoded.visual_tokens.slow) if encoded and self._checkpoint.model.config.hybrid_layers else 0,
                new=len(row.new_ids),
                reused=row.num_reused,
            ),
            timings=self._timings(row),
            peak_memory_bytes=peak_memory_bytes(self._checkpoint.model.device),
            warnings=(
                *self._checkpoint.warnings,
                *self._warnings,
                *self._recording_warnings(),
                *(encoded.warnings if encoded else ()),
                *row.prompt.warnings,
                *(unlikely_warning(row.choices) if row.choices else ()),
                *self._length_warnings(row),
                *([NOTHING_LOOKED_AT] if encoded and evidence == () and row.new_ids else []),
            ),
            settings=self._settings(encoded),
            choices=row.choices,
            subtitles=row.prompt.subtitles,
            from_video_cache=encoded is not None and encoded.is_from_cache,
            evidence=evidence,
            window=encoded.window if encoded else None,
            log_probabilities=tuple(row.log_probabilities) if self._options.log_probabilities else None,
        )

    def _recording_warnings(self) -> list[str]:
        trouble = self._recorded.graphs.trouble if self._recorded else ""
        return [f"Decoding steps could not be recorded, and run slower for it: {trouble}."] if trouble else []

    def _length_warnings(self, row: AnswerRow) -> list[str]:
        trained = self._checkpoint.model.config.training_max_length
        if trained is None or len(row.prompt.token_ids) + len(row.new_ids) <= trained:
            return []
        return [f"Prompt and answer together are longer than the {trained} tokens the model was trained with."]

    def _timings(self, row: AnswerRow) -> Timings:
        read_seconds = row.encoded.read_seconds if row.encoded else 0.0
        encode_seconds = row.encoded.encode_seconds if row.encoded else 0.0
        overlap_seconds = row.encoded.overlap_seconds if row.encoded else 0.0
        prefill_seconds, decode_seconds = row.group.prefill_watch.seconds, row.group.decode_watch.seconds
        seeing_seconds = read_seconds + encode_seconds - overlap_seconds
        ttft_seconds = seeing_seconds + prefill_seconds + row.group.first_token_watch.seconds
        has_speed = len(row.new_ids) > 1 and decode_seconds > 0
        return Timings(
            load_seconds=self._checkpoint.load_seconds,
            read_seconds=read_seconds,
            encode_seconds=encode_seconds,
            overlap_seconds=overlap_seconds,
            prefill_seconds=prefill_seconds,
            ttft_seconds=ttft_seconds,
            decode_seconds=decode_seconds,
            total_seconds=ttft_seconds + decode_seconds,
            tokens_per_second=(len(row.new_ids) - 1) / decode_seconds if has_speed else None,
            asked_together=row.group.size,
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
            top_k=options.top_k,
            repetition_penalty=options.repetition_penalty,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            stop=options.stop,
            schema=None if options.schema is None else options.schema.text,
            static_decode=self._is_static,
            system=self._prompt_options.system,
            template=self._prompt_options.template,
        )


def _begin_waits(rows: Sequence[AnswerRow], waits: ExitStack) -> None:
    """Answers wait now, each for its first token or the next one, until `waits` is closed."""
    for group in {row.group for row in rows}:
        waits.enter_context(group.decode_watch if group.has_begun else group.first_token_watch)
