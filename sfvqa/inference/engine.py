"""From prefilled prompts to tokens: choose, decode. Knows nothing of text, files or clocks."""

import reprlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, cast

import torch
from torch import FloatTensor, LongTensor, Tensor
from torch.nn import functional
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.prefill import Prefilled, in_order
from sfvqa.inference.schema import JsonSchema, SchemaGuide
from sfvqa.model import (
    DecodeStep,
    SlowAttention,
    SlowFastForConditionalGeneration,
    decoding_kernels,
)
from sfvqa.model.decode_step import StaticDecode, check_static_decode, why_not_static


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen. UsageError when a value cannot be.

    `temperature` 0 is greedy: the likeliest token, always the same. Above 0 one is drawn from the `top_p` likeliest
    mass of the `top_k` likeliest tokens (None: of all) with `seed`. `repetition_penalty` above 1 holds back tokens this
    answer has used already (the prompt does not count, as in the reference). `slow_attention` `prefill` drops slow
    tokens while decoding, as the reference does. `static_decode` decodes over buffers of fixed size, which pays on CUDA
    (see RecordedSteps). `evidence` notes which frames an answer looks at (see evidence), `log_probabilities` how likely
    the model found each token that was chosen; neither changes a token.
    An answer ends before the first of the texts in `stop` (see TextBefore), and where `stop_when`, which is asked with
    its text whenever that has grown, says so. With a `schema` it is JSON that is valid by it. A `logits_processor` of
    transformers, or any function of its form, makes of the tokens said `[B, n]`, none of the prompt's, and the scores
    of the next one, float32 `[B, V]`, other scores, before a schema and a temperature see them. An Answer's settings
    hold neither function.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    slow_attention: SlowAttention = SlowAttention.ALWAYS
    static_decode: StaticDecode = StaticDecode.AUTO
    evidence: bool = False
    log_probabilities: bool = False
    stop: tuple[str, ...] = ()
    stop_when: Callable[[str], bool] | None = None
    logits_processor: Callable[..., Tensor] | None = None
    schema: JsonSchema | None = None

    def __post_init__(self) -> None:
        for name, kind, is_possible, wanted in _POSSIBLE:
            value = getattr(self, name)
            is_right_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not (is_right_kind and is_possible(value)):
                raise UsageError(f"{name} is {value!r}.", f"It must be {wanted}.")
        if (self.stop or self.stop_when) and self.schema:
            name = "stop" if self.stop else "stop_when"
            raise UsageError("An answer by a schema ends where the schema says.", f"Leave out {name} or the schema.")
        if self.evidence:
            check_static_decode(
                self.static_decode, why_not_static(attention="sdpa", quantization="none", evidence=True)
            )
        for name, enum in (("slow_attention", SlowAttention), ("static_decode", StaticDecode)):
            object.__setattr__(self, name, enum(getattr(self, name)))  # it may be given by its name

    def check_for_choices(self) -> None:
        """UsageError when something is set that says how an answer is written: a choice is compared, not written."""
        default = GenerationOptions(slow_attention=self.slow_attention, evidence=self.evidence)
        for name in (each.name for each in fields(self)):
            if getattr(self, name) != getattr(default, name):
                raise UsageError(
                    f"{name} is {reprlib.repr(getattr(self, name))}, and choices are compared, not written.",
                    f"Leave out {name} or the choices.",
                )


_INFINITY = float("inf")
_POSSIBLE: tuple[tuple[str, Any, Callable[[Any], bool], str], ...] = (
    ("max_new_tokens", int, lambda count: count >= 1, "a whole number, at least 1"),
    ("temperature", int | float, lambda number: 0 <= number < _INFINITY, "0 (greedy) or more"),
    ("top_p", int | float, lambda number: 0 < number <= 1, "above 0 and at most 1"),
    ("top_k", int | None, lambda count: count is None or count >= 1, "a whole number, at least 1, or None"),
    ("repetition_penalty", int | float, lambda number: 0 < number < _INFINITY, "a number above 0"),
    ("seed", int, lambda number: 0 <= number < 2**63, "0 or a positive 64-bit number"),
    ("static_decode", str, lambda name: name in list(StaticDecode), " or ".join(StaticDecode)),
    ("evidence", bool, lambda _: True, "true or false"),
    ("log_probabilities", bool, lambda _: True, "true or false"),
    ("stop_when", Callable | None, lambda _: True, "a function of the text so far"),
    ("logits_processor", Callable | None, lambda _: True, "a function of tokens and scores, or a LogitsProcessor"),
    ("stop", tuple, lambda texts: all(isinstance(text, str) and text for text in texts), "a tuple of texts"),
    ("schema", JsonSchema | None, lambda _: True, "a JsonSchema"),
    ("slow_attention", str, lambda name: name in list(SlowAttention), " or ".join(SlowAttention)),
)


@dataclass(frozen=True)
class GeneratedToken:
    """One token of one answer; `finish_reason` is set on an answer's last, `log_probability` where it is asked for."""

    token_id: int
    finish_reason: FinishReason | None = None
    log_probability: float | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is an end token, which is not part of the text."""
        return self.finish_reason is FinishReason.STOP


Step = Callable[[Tensor], Tensor]
"""Runs one more token of every answer `[B]` through the model; logits `[B, V]`."""


class ChosenTokens:
    """The next token of every answer, `ids` `[B]` where the model is, on their way to the processor.

    With them, where that is asked for, how likely each is by the `logits` `[B, V]`.
    """

    def __init__(self, ids: Tensor, logits: Tensor, *, log_probabilities: bool = False) -> None:
        self.ids, self._dtype, is_on_cuda = ids, logits.dtype, ids.device.type == "cuda"
        told = [ids, logits.isfinite().all()[None].long()]
        if log_probabilities:
            told.append(logits.float().log_softmax(dim=-1).gather(1, ids[:, None])[:, 0])
        self._told = [part.to("cpu", non_blocking=is_on_cuda) for part in told]
        self._arrival = torch.cuda.current_stream(ids.device).record_event() if is_on_cuda else None

    def wait(self) -> list[int]:
        """The tokens, once they are here, whatever else the device has to do; SfvqaError when they are no tokens."""
        if self._arrival is not None:
            self._arrival.synchronize()
        token_ids: list[int] = self._told[0].tolist()
        if not self._told[1]:
            raise _not_finite(self._dtype)
        return token_ids

    def log_probabilities(self) -> list[float] | list[None]:
        """Those of the tokens that were waited for, None where they are not asked for."""
        return self._told[2].tolist() if len(self._told) > 2 else [None] * len(self.ids)


class TokenChooser:
    """Chooses the next token of every answer of a batch from its logits and what it has said so far, on their device.

    Each answer draws with numbers from a generator of its own, so that neither the batch it is in nor the device
    changes what it draws.
    """

    def __init__(self, options: GenerationOptions, batch_size: int, device: torch.device) -> None:
        self._penalty, self._processor = float(options.repetition_penalty), options.logits_processor
        self._ids = torch.zeros((batch_size, 0), dtype=torch.long, device=device)  # that were said, for the processor
        self._log_probabilities = options.log_probabilities
        self._warpers = LogitsProcessorList()
        self._draws: Tensor | None = None
        if options.temperature != 0:
            self._warpers.append(TemperatureLogitsWarper(float(options.temperature)))
            if options.top_k is not None:
                self._warpers.append(TopKLogitsWarper(options.top_k))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(float(options.top_p)))
            own = torch.Generator().manual_seed(options.seed)
            self._draws = torch.rand(options.max_new_tokens, generator=own).to(device)  # for all: they have one seed
        self._counts = torch.zeros(batch_size, dtype=torch.long, device=device)  # tokens of each so far
        self._said: Tensor | None = None  # `[B, V]`, what each has said, nothing of the prompt

    def choose(self, logits: Tensor, allow: Callable[[Tensor], Tensor] | None = None) -> ChosenTokens:
        """Choose from `logits` `[B, V]`, of what `allow` leaves of their scores, without waiting for the device."""
        scores = logits
        if self._penalty != 1:
            scores = logits.float()
            self._said = torch.zeros_like(scores, dtype=torch.bool) if self._said is None else self._said
            scores = torch.where(
                self._said, torch.where(scores < 0, scores * self._penalty, scores / self._penalty), scores
            )
        if self._processor is not None:
            scores = self._processed(self._processor, scores.to(torch.float32, copy=True))  # which it may write to
        if allow is not None:
            scores = allow(scores)
        chosen = scores.argmax(dim=-1) if self._draws is None else self._draw(scores.float(), self._draws)
        self._counts += 1
        if self._said is not None:
            self._said.scatter_(1, chosen[:, None], True)
        if self._processor is not None:
            self._ids = torch.cat([self._ids, chosen[:, None]], dim=1)
        return ChosenTokens(chosen, logits, log_probabilities=self._log_probabilities)

    def _processed(self, processor: Callable[..., Tensor], scores: Tensor) -> Tensor:
        processed: Tensor = processor(self._ids, scores)
        if processed.shape != scores.shape:
            raise UsageError(
                f"The logits processor made scores of shape {list(processed.shape)} of {list(scores.shape)}.",
                "It must give a score for each of the tokens.",
            )
        return processed

    def exchange(self, stay: Sequence[int], num_joining: int) -> None:
        """Go on with these rows of the batch, and others behind them that have said nothing."""
        rows = torch.tensor(stay, dtype=torch.long, device=self._counts.device)
        self._counts = functional.pad(self._counts[rows], (0, num_joining))
        if self._said is not None:
            self._said = functional.pad(self._said[rows], (0, 0, 0, num_joining))

    def _draw(self, scores: Tensor, draws: Tensor) -> Tensor:
        """The token at which the chances, added up, pass the number drawn, between 0 and 1, of their sum."""
        drawn = draws[self._counts.clamp(max=len(draws) - 1)][:, None]
        # The likeliest at 0, so that dividing by a temperature near 0 cannot overflow.
        nothing = cast("LongTensor", self._counts[:, None])  # these warpers look at no tokens
        scores = self._warpers(nothing, cast("FloatTensor", scores - scores.amax(dim=-1, keepdim=True)))
        exact = torch.float32 if scores.device.type == "mps" else torch.float64  # which MPS lacks
        up_to_here = scores.softmax(dim=-1).cumsum(dim=-1, dtype=exact)
        return (up_to_here <= drawn * up_to_here[:, -1:]).sum(dim=-1).clamp(max=scores.shape[-1] - 1)


@torch.inference_mode()
def decode(model: SlowFastForConditionalGeneration, state: Prefilled, token_ids: Tensor) -> Prefilled:
    """Run one more token of every answer, `[B]`, through the model."""
    mask = torch.cat([state.attention_mask, state.attention_mask.new_ones(len(token_ids), 1)], dim=1)
    with decoding_kernels(mask.device):
        output = model(token_ids[:, None].to(mask.device), attention_mask=mask, cache=state.cache, use_cache=True)
    return Prefilled(output.logits[:, -1], mask, state.cache)


def generate_tokens(
    model: SlowFastForConditionalGeneration,
    state: Prefilled,
    options: GenerationOptions,
    end_token_ids: frozenset[int],
    begin_recorded: Callable[[Prefilled, int], Step | None] | None = None,
    running: list[bool] | None = None,
    guide: SchemaGuide | None = None,
    *,
    may_leave: bool = False,
) -> Generator[tuple[GeneratedToken | None, ...], Callable[[], Prefilled] | None, None]:
    """Yield a token of every answer a step, from prefilled prompts, until each has ended; None for one that has.

    An answer stops at an end token (which is yielded, as its last), at `max_new_tokens`, or where the caller says in
    `running`, at any time, that it runs no more. `begin_recorded` is asked for so many steps behind the prompts;
    without any of it others are taken. On CUDA the next step has begun before a token is waited for, so that the device
    never waits: the last one is in vain where an answer ends before `max_new_tokens`. Where a `guide` says what may
    come next, it does so while the device is at that step.

    Where they `may_leave`, answers that have ended leave the batch behind the next step of the others, and with them
    their keys and values. Then those join that a function which is sent in prefills; `running` and the `guide` have
    places for them already. Neither is possible where steps are recorded, whose size is fixed.
    """
    logits, device = state.logits, state.logits.device  # of several devices the head may be on another
    places = list(range(len(logits)))
    running = [True] * len(places) if running is None else running
    counts = [0] * len(places)
    chooser = TokenChooser(options, len(places), device)
    begins_ahead = device.type == "cuda" and not options.evidence
    begins: Prefilled | None = state  # what steps are still to begin behind
    del state
    run: Step | None = None
    while True:
        chosen = chooser.choose(logits, None if guide is None else partial(guide.mask, running=running, places=places))
        for place in places:
            counts[place] += 1
        goes_on = any(running[place] and counts[place] < options.max_new_tokens for place in places)
        has_begun = run is not None and begins_ahead and goes_on  # the first token waits for nothing else
        if run is not None and has_begun:
            logits = run(chosen.ids).to(device)
        step: list[GeneratedToken | None] = [None] * len(counts)
        are_last = [counts[place] >= options.max_new_tokens for place in places]
        for place, token in zip(places, _told(chosen, are_last, end_token_ids), strict=True):
            if running[place]:
                step[place] = token
            if token.finish_reason is not None:
                running[place] = False
            elif guide is not None and running[place]:
                guide.take(place, token.token_id)
        prefill_joining = yield tuple(step)
        stay = [row for row, place in enumerate(places) if running[place]]
        if not stay and prefill_joining is None:
            return
        if stay and begins is not None:
            num_steps = options.max_new_tokens - min(counts[places[row]] for row in stay)
            run = (begin_recorded and begin_recorded(begins, num_steps)) or _Growing(model, begins, num_steps)
            begins = None  # the cache lives in the steps alone, and goes with them
        if run is not None and stay and not has_begun:
            logits = run(chosen.ids).to(device)
        if prefill_joining is not None or (may_leave and len(stay) < len(places)):
            assert run is None or isinstance(run, _Growing), "recorded steps have a fixed size"
            parts = [_kept(run.state(logits), stay)] if run and stay else []
            run = begins = None  # and with them the room behind the cache
            if prefill_joining is not None:
                parts.append(prefill_joining())
            places = [places[row] for row in stay] + list(range(len(counts), len(running)))
            counts += [0] * (len(running) - len(counts))
            chooser.exchange(stay, len(places) - len(stay))
            begins = in_order(parts, range(len(places)))
            logits = begins.logits


def _told(
    chosen: ChosenTokens, are_last: Sequence[bool], end_token_ids: frozenset[int]
) -> Generator[GeneratedToken, None, None]:
    """The tokens of a step, once they are here; those that `are_last` end their answers, whatever they are."""
    for token_id, log_probability, is_last in zip(chosen.wait(), chosen.log_probabilities(), are_last, strict=True):
        reason = FinishReason.STOP if token_id in end_token_ids else FinishReason.LENGTH if is_last else None
        yield GeneratedToken(token_id, reason, log_probability)


class _Growing:
    """The fastest steps that are possible with a cache that grows."""

    def __init__(self, model: SlowFastForConditionalGeneration, state: Prefilled, num_steps: int) -> None:
        self._model, self._state = model, state
        self._step = (
            DecodeStep(model, state.cache, state.attention_mask, num_steps) if DecodeStep.is_possible(model) else None
        )

    def __call__(self, token_ids: Tensor) -> Tensor:
        """Run one more token of every answer, `[B]`, through the model; logits `[B, V]`."""
        if self._step is not None:
            return self._step(token_ids)
        self._state = decode(self._model, self._state, token_ids)
        return self._state.logits

    def state(self, logits: Tensor) -> Prefilled:
        """What has gone through the model by now, whose last logits these are."""
        cache, mask = self._state.cache, self._state.attention_mask
        return Prefilled(logits, functional.pad(mask, (0, cache.get_seq_length() - mask.shape[1]), value=1), cache)


@torch.inference_mode()
def _kept(state: Prefilled, stay: Sequence[int]) -> Prefilled:
    """These rows of a batch alone, whose cache then holds nothing of the others."""
    rows = torch.tensor(stay, device=state.attention_mask.device)
    mask = state.attention_mask[rows]
    start = int(mask.any(dim=0).int().argmax())  # where the longest of those that stay begins
    state.cache.keep(rows, start)
    return Prefilled(state.logits[rows.to(state.logits.device)], mask[:, start:], state.cache)


def check_finite(logits: Tensor) -> None:
    """SfvqaError when the model computed what is no number."""
    if not bool(logits.isfinite().all()):
        raise _not_finite(logits.dtype)


def _not_finite(dtype: torch.dtype) -> SfvqaError:
    return SfvqaError(
        f"The model computed something that is not a number ({str(dtype).removeprefix('torch.')}).",
        "Use --dtype bfloat16 or float32; if it was one of these, the weights are damaged.",
    )
