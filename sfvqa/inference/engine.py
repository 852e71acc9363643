"""From prompts to tokens: prefill what prompts share once, choose, decode. Knows nothing of text, files or clocks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import FloatTensor, LongTensor, Tensor
from torch.nn import functional
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.question import WRITING_OPTIONS, check_evidence
from sfvqa.model import (
    IMAGE_TOKEN_ID,
    DecodeStep,
    SlowAttention,
    SlowFastCache,
    SlowFastForConditionalGeneration,
    VisualTokens,
)


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen. UsageError when a value cannot be.

    `temperature` 0 is greedy: the likeliest token, always the same. Above 0 one is drawn from the `top_p` likeliest
    mass with `seed`. `repetition_penalty` above 1 holds back tokens this answer has used already (the prompt does not
    count, as in the reference). `slow_attention` `prefill` drops slow tokens while decoding, as the reference does.
    `static_decode` decodes over buffers of fixed size, which pays on CUDA (see DecodeStep). `evidence` notes which
    frames an answer looks at (see evidence); it changes no token.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0
    slow_attention: SlowAttention = SlowAttention.ALWAYS
    static_decode: bool = False
    evidence: bool = False

    def __post_init__(self) -> None:
        for name, kind, is_possible, wanted in _POSSIBLE:
            value = getattr(self, name)
            is_right_kind = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
            if not (is_right_kind and is_possible(value)):
                raise UsageError(f"{name} is {value!r}.", f"It must be {wanted}.")
        if self.evidence:
            check_evidence(static_decode=self.static_decode)
        object.__setattr__(self, "slow_attention", SlowAttention(self.slow_attention))  # it may be given by name

    def check_for_choices(self) -> None:
        """UsageError when something is set that says how an answer is written: a choice is compared, not written."""
        default = GenerationOptions(slow_attention=self.slow_attention)
        for name in WRITING_OPTIONS:
            if getattr(self, name) != getattr(default, name):
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, and choices are compared, not written.",
                    f"Leave out {name} or the choices.",
                )


_INFINITY = float("inf")
_POSSIBLE: tuple[tuple[str, Any, Callable[[Any], bool], str], ...] = (
    ("max_new_tokens", int, lambda count: count >= 1, "a whole number, at least 1"),
    ("temperature", int | float, lambda number: 0 <= number < _INFINITY, "0 (greedy) or more"),
    ("top_p", int | float, lambda number: 0 < number <= 1, "above 0 and at most 1"),
    ("repetition_penalty", int | float, lambda number: 0 < number < _INFINITY, "a number above 0"),
    ("seed", int, lambda number: 0 <= number < 2**63, "0 or a positive 64-bit number"),
    ("static_decode", bool, lambda _: True, "true or false"),
    ("evidence", bool, lambda _: True, "true or false"),
    ("slow_attention", str, lambda name: name in list(SlowAttention), " or ".join(SlowAttention)),
)


@dataclass(frozen=True)
class GeneratedToken:
    """One token of one answer; `finish_reason` is set on an answer's last."""

    token_id: int
    finish_reason: FinishReason | None = None

    @property
    def is_end(self) -> bool:
        """Whether it is an end token, which is not part of the text."""
        return self.finish_reason is FinishReason.STOP


@dataclass(frozen=True, eq=False)
class Prefilled:
    """What a pass leaves: logits of the last position `[B, V]`, and the cache that decoding goes on from."""

    logits: Tensor
    attention_mask: Tensor
    cache: SlowFastCache


@torch.inference_mode()
def prefill(
    model: SlowFastForConditionalGeneration,
    prompts: Sequence[Sequence[int]],
    visual_tokens: Sequence[VisualTokens | None] | None,
    after: SlowFastCache | None = None,
) -> Prefilled:
    """Run prompts (fast tokens expanded), padded on the left, through the model once.

    With `after` they are the rests of prompts, behind what that cache holds, the video included; it grows.
    """
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    cache = SlowFastCache(model.config) if after is None else after
    if after is not None:
        mask = torch.cat([mask.new_ones(len(prompts), after.get_seq_length()), mask], dim=1)
    output = model(ids, attention_mask=mask, visual_tokens=visual_tokens, cache=cache, use_cache=True, logits_to_keep=1)
    return Prefilled(output.logits[:, -1], mask, cache)


@dataclass(frozen=True, eq=False)
class KeptPrompt:
    """Tokens that went through the model, about one video or none, with the KV cache they left.

    The slow keys and values are in the cache too, so that what follows looks at the slow tokens.
    """

    token_ids: tuple[int, ...]
    visual_tokens: VisualTokens | None
    cache: SlowFastCache

    @classmethod
    def of(cls, token_ids: Sequence[int], visual_tokens: VisualTokens | None, cache: SlowFastCache) -> Self | None:
        """Keep as many of the tokens as every layer of the cache holds; None for a cache that forgets."""
        if not cache.is_forkable:
            return None
        length = cache.num_complete
        return cls(tuple(token_ids[:length]), visual_tokens, cache.fork(length))

    def num_shared_with(self, prompt: Sequence[int], visual_tokens: VisualTokens | None, num_last: int = 1) -> int:
        """How many first tokens of a prompt need no prefill; its last one always does, since its logits are wanted,
        or its `num_last`.
        """
        if visual_tokens is not self.visual_tokens:
            return 0
        return num_shared([self.token_ids, prompt[:-num_last]])


def num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, the whole video among them; 0 where they part before its end.

    >>> num_shared([[1, 2, 3], [1, 2, 4, 5]])
    2
    >>> num_shared([[1, IMAGE_TOKEN_ID, IMAGE_TOKEN_ID, 3], [1, IMAGE_TOKEN_ID]])
    0
    """
    count = 0
    for tokens in zip(*prompts, strict=False):
        if any(token != tokens[0] for token in tokens):
            break
        count += 1
    return 0 if any(IMAGE_TOKEN_ID in prompt[count:] for prompt in prompts) else count


def prefill_one(
    model: SlowFastForConditionalGeneration,
    prompt: Sequence[int],
    visual_tokens: VisualTokens | None,
    kept: KeptPrompt | None,
    num_last: int = 1,
) -> tuple[Prefilled, int]:
    """Prefill a prompt, at least its `num_last` tokens, behind what is kept of it; also how many tokens needed none."""
    shared = kept.num_shared_with(prompt, visual_tokens, num_last) if kept else 0
    if not kept or not shared:
        return prefill(model, [prompt], [visual_tokens]), 0
    return prefill(model, [prompt[shared:]], None, after=kept.cache.fork(shared)), shared


def prefill_together(
    model: SlowFastForConditionalGeneration,
    prompts: Sequence[Sequence[int]],
    visual_tokens: Sequence[VisualTokens | None],
    num_last: Sequence[int] | None = None,
    around_ends: Callable[[Sequence[int]], AbstractContextManager[None]] = lambda _rows: nullcontext(),
) -> tuple[Prefilled, list[int]]:
    """Prefill a batch; what prompts about one video begin with goes through the model once, for the first of them.

    The other prompts go through it together. Also how many tokens of each prompt needed none so. At least `num_last`
    tokens of each prompt (its last one) go through in one pass, around which `around_ends` of its rows is entered.
    """
    num_last = num_last or [1] * len(prompts)
    if not SlowFastCache(model.config).is_forkable:
        with around_ends(range(len(prompts))):
            return prefill(model, prompts, visual_tokens), [0] * len(prompts)
    num_reused = [0] * len(prompts)
    parts: list[Prefilled] = []
    rows: list[int] = []
    alone: list[int] = []
    for about_one in _by_video(visual_tokens):
        shared = num_shared([prompts[row][: -num_last[row]] for row in about_one]) if len(about_one) > 1 else 0
        if not shared:
            alone += about_one
            continue
        about, video = [prompts[row] for row in about_one], visual_tokens[about_one[0]]
        beginning = prefill(model, [about[0][:shared]], [video]).cache
        beginning.batch_repeat_interleave(len(about))
        with around_ends(about_one):  # the rests are padded between beginning and rest
            parts.append(prefill(model, [prompt[shared:] for prompt in about], None, after=beginning))
        rows += about_one
        for row in about_one[1:]:
            num_reused[row] = shared
    if alone:
        with around_ends(alone):
            parts.append(prefill(model, [prompts[row] for row in alone], [visual_tokens[row] for row in alone]))
        rows += alone
    return _in_order(parts, rows), num_reused


def _by_video(visual_tokens: Sequence[VisualTokens | None]) -> list[list[int]]:
    """The places of each video."""
    places: dict[int, list[int]] = {}
    for place, tokens in enumerate(visual_tokens):
        places.setdefault(id(tokens), []).append(place)
    return list(places.values())


@torch.inference_mode()
def _in_order(parts: list[Prefilled], rows: Sequence[int]) -> Prefilled:
    """Parts of a batch as one, whose `rows` are where each row of the parts is to be."""
    if len(parts) == 1 and rows == sorted(rows):
        return parts[0]
    longest = max(part.attention_mask.shape[1] for part in parts)
    mask = torch.cat(
        [functional.pad(part.attention_mask, (longest - part.attention_mask.shape[1], 0)) for part in parts]
    )
    logits = torch.cat([part.logits for part in parts])
    cache = SlowFastCache.stack([part.cache for part in parts])
    order = torch.tensor(rows).argsort()
    cache.batch_select_indices(order)
    return Prefilled(logits[order], mask[order], cache)


class TokenChooser:
    """Chooses the next token of every answer of a batch from its logits and what it has said so far.

    Each answer draws from a generator of its own, on the CPU, so that neither the batch it is in nor the device
    changes what it draws.
    """

    def __init__(self, options: GenerationOptions, batch_size: int) -> None:
        self._penalties, self._warpers = LogitsProcessorList(), LogitsProcessorList()
        if options.repetition_penalty != 1:
            self._penalties.append(RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
        self._is_greedy = options.temperature == 0
        if not self._is_greedy:
            self._warpers.append(TemperatureLogitsWarper(float(options.temperature)))
            if options.top_p < 1:
                self._warpers.append(TopPLogitsWarper(float(options.top_p)))
        self._generators = [torch.Generator().manual_seed(options.seed) for _ in range(batch_size)]
        self._said = torch.empty(
            batch_size, 0, dtype=torch.long
        )  # what was chosen so far [B, n]; no prompt, so no placeholder, is in it

    def choose(self, logits: Tensor) -> Tensor:
        """Token ids `[B]`, on the CPU, from `logits` `[B, V]`; SfvqaError when they are no numbers."""
        check_finite(logits)
        chosen = logits.argmax(dim=-1).cpu() if self._is_plain else self._process(logits.float().cpu())
        self._said = torch.cat([self._said, chosen[:, None]], dim=1)
        return chosen

    @property
    def _is_plain(self) -> bool:
        return self._is_greedy and not self._penalties

    def _process(self, logits: Tensor) -> Tensor:
        said = cast("LongTensor", self._said)
        scores: Tensor = self._penalties(said, cast("FloatTensor", logits))
        if self._is_greedy:
            return scores.argmax(dim=-1)
        # The likeliest at 0, so that dividing by a temperature near 0 cannot overflow.
        scores = self._warpers(said, cast("FloatTensor", scores - scores.amax(dim=-1, keepdim=True)))
        chances = scores.softmax(dim=-1)
        drawn = [torch.multinomial(row, 1, generator=own) for row, own in zip(chances, self._generators, strict=True)]
        return torch.cat(drawn)


@torch.inference_mode()
def decode(model: SlowFastForConditionalGeneration, state: Prefilled, token_ids: Tensor) -> Prefilled:
    """Run one more token of every answer, `[B]`, through the model."""
    mask = torch.cat([state.attention_mask, state.attention_mask.new_ones(len(token_ids), 1)], dim=1)
    output = model(token_ids[:, None].to(mask.device), attention_mask=mask, cache=state.cache, use_cache=True)
    return Prefilled(output.logits[:, -1], mask, state.cache)


def generate_tokens(
    model: SlowFastForConditionalGeneration,
    state: Prefilled,
    options: GenerationOptions,
    end_token_ids: frozenset[int],
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    """Yield a token of every answer a step, from prefilled prompts, until each has ended; None for one that has.

    An answer stops at an end token (which is yielded, as its last) or at `max_new_tokens`.
    """
    logits, run, can_step = state.logits, None, DecodeStep.is_possible(model, state.cache)
    if options.static_decode and not can_step:
        raise UsageError(
            "This model's steps have no fixed size: it lies on several devices, or its layers forget or rotate anew.",
            "Leave out --static-decode.",
        )
    chooser = TokenChooser(options, batch_size=len(logits))
    running = [True] * len(logits)
    for count in range(1, options.max_new_tokens + 1):
        chosen = chooser.choose(logits)
        step: list[GeneratedToken | None] = []
        for row, token_id in enumerate(chosen.tolist()):
            reason = FinishReason.LENGTH if count == options.max_new_tokens else None
            reason = FinishReason.STOP if token_id in end_token_ids else reason
            step.append(GeneratedToken(token_id, reason) if running[row] else None)
            running[row] = running[row] and reason is None
        yield tuple(step)
        if not any(running):
            return
        if can_step and run is None:
            num_steps = options.max_new_tokens - count
            run = DecodeStep(model, state.cache, state.attention_mask, num_steps, recorded=options.static_decode)
        state = decode(model, state, chosen) if run is None else replace(state, logits=run(chosen))
        logits = state.logits


def check_finite(logits: Tensor) -> None:
    """SfvqaError when the model computed what is no number."""
    if not bool(logits.isfinite().all()):
        raise SfvqaError(
            f"The model computed something that is not a number ({str(logits.dtype).removeprefix('torch.')}).",
            "Use --dtype bfloat16 or float32; if it was one of these, the weights are damaged.",
        )
