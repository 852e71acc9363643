"""Prompt → tokens, one step at a time: prefill, choose, decode. Knows nothing of text, files or clocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import FloatTensor, LongTensor, Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.answer import FinishReason
from sfvqa.inference.question import WRITING_OPTIONS, check_evidence
from sfvqa.inference.static_decode import StaticDecoder
from sfvqa.model import SlowAttention, SlowFastCache, SlowFastForConditionalGeneration, VisualTokens


@dataclass(frozen=True)
class GenerationOptions:
    """How tokens are chosen. UsageError when a value cannot be.

    `temperature` 0 is greedy: the likeliest token, always the same. Above 0 one is drawn from the `top_p` likeliest
    mass with `seed`. `repetition_penalty` above 1 holds back tokens this answer has used already (the prompt does not
    count, as in the reference). `slow_attention` `prefill` drops slow tokens while decoding, as the reference does.
    `static_decode` decodes over buffers of fixed size, which pays on CUDA (see static_decode). `evidence` notes which
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
        for name, kind, wanted in (
            ("max_new_tokens", int, "a whole number"),
            ("temperature", int | float, "a number"),
            ("top_p", int | float, "a number"),
            ("repetition_penalty", int | float, "a number"),
            ("seed", int, "a whole number"),
        ):
            value = getattr(self, name)
            _require(isinstance(value, kind) and not isinstance(value, bool), f"{name} is {value!r}", wanted)
        for name in ("static_decode", "evidence"):
            value = getattr(self, name)
            _require(isinstance(value, bool), f"{name} is {value!r}", "true or false")
        if self.evidence:
            check_evidence(static_decode=self.static_decode)
        known = " or ".join(SlowAttention)
        _require(self.slow_attention in list(SlowAttention), f"slow_attention is {self.slow_attention!r}", known)
        object.__setattr__(self, "slow_attention", SlowAttention(self.slow_attention))  # it may be given by name
        _require(self.max_new_tokens >= 1, f"max_new_tokens is {self.max_new_tokens}", "at least 1")
        _require(0 <= self.temperature < float("inf"), f"temperature is {self.temperature}", "0 (greedy) or more")
        _require(0 < self.top_p <= 1, f"top_p is {self.top_p}", "above 0 and at most 1")
        _require(
            0 < self.repetition_penalty < float("inf"), f"repetition_penalty is {self.repetition_penalty}", "above 0"
        )
        _require(0 <= self.seed < 2**63, f"seed is {self.seed}", "0 or a positive 64-bit number")

    def check_for_choices(self) -> None:
        """UsageError when something is set that says how an answer is written: a choice is compared, not written."""
        default = GenerationOptions(slow_attention=self.slow_attention)
        for name in WRITING_OPTIONS:
            if getattr(self, name) != getattr(default, name):
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, and choices are compared, not written.",
                    f"Leave out {name} or the choices.",
                )


@dataclass(frozen=True, eq=False)
class GenerationInputs:
    """Prompts, padded on the left: `input_ids` and `attention_mask` `[B, L]`, and each one's visual tokens."""

    input_ids: Tensor
    attention_mask: Tensor
    visual_tokens: tuple[VisualTokens | None, ...]

    @classmethod
    def pad_left(
        cls, prompts: Sequence[Sequence[int]], visual_tokens: Sequence[VisualTokens | None], device: torch.device
    ) -> "GenerationInputs":
        """Pad prompts (fast tokens expanded) to the longest; the padding is token 0 and masked."""
        longest = max(len(prompt) for prompt in prompts)
        ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return cls(torch.tensor(ids, device=device), torch.tensor(mask, device=device), tuple(visual_tokens))


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
def prefill(
    model: SlowFastForConditionalGeneration,
    inputs: GenerationInputs,
    slow_attention: SlowAttention,
) -> Prefilled:
    """Run the prompts through the model once, computing slow keys and values on the way."""
    logits, cache = model.prefill(
        inputs.input_ids, inputs.attention_mask, inputs.visual_tokens, slow_attention=slow_attention
    )
    return Prefilled(logits, inputs.attention_mask, cache)


@torch.inference_mode()
def prefill_after(model: SlowFastForConditionalGeneration, after: SlowFastCache, inputs: GenerationInputs) -> Prefilled:
    """Run the rests of prompts through the model, behind what a cache holds: unpadded, the video included; it grows."""
    before = inputs.attention_mask.new_ones(len(inputs.input_ids), after.get_seq_length())
    mask = torch.cat([before, inputs.attention_mask], dim=1)
    output = model(inputs.input_ids, attention_mask=mask, cache=after, use_cache=True, logits_to_keep=1)
    return Prefilled(output.logits[:, -1], mask, after)


@torch.inference_mode()
def decode(model: SlowFastForConditionalGeneration, state: Prefilled, token_ids: Tensor) -> Prefilled:
    """Run one more token of every answer, `[B]`, through the model."""
    mask = torch.cat([state.attention_mask, state.attention_mask.new_ones(len(token_ids), 1)], dim=1)
    logits = model.decode(token_ids[:, None].to(mask.device), mask, state.cache)
    return Prefilled(logits, mask, state.cache)


def generate_tokens(
    model: SlowFastForConditionalGeneration,
    state: Prefilled,
    options: GenerationOptions,
    end_token_ids: frozenset[int],
) -> Iterator[tuple[GeneratedToken | None, ...]]:
    """Yield a token of every answer a step, from prefilled prompts, until each has ended; None for one that has.

    An answer stops at an end token (which is yielded, as its last) or at `max_new_tokens`.
    """
    advance = _static(model, state, options) if options.static_decode else _growing(model, state)
    logits = state.logits
    del state  # its cache goes with what decodes
    chooser = TokenChooser(options, batch_size=len(logits))
    running = [True] * len(logits)
    for count in range(1, options.max_new_tokens + 1):
        chosen = chooser.choose(logits)
        step: list[GeneratedToken | None] = []
        for row, token_id in enumerate(chosen.tolist()):
            reason = _finish_reason(token_id, count, options.max_new_tokens, end_token_ids)
            step.append(GeneratedToken(token_id, reason) if running[row] else None)
            running[row] = running[row] and reason is None
        yield tuple(step)
        if not any(running):
            return
        logits = advance(chosen)


def _growing(model: SlowFastForConditionalGeneration, state: Prefilled) -> Callable[[Tensor], Tensor]:
    """Decoding with a cache that grows by a position a step."""

    def advance(token_ids: Tensor) -> Tensor:
        nonlocal state
        state = decode(model, state, token_ids)
        return state.logits

    return advance


def _static(
    model: SlowFastForConditionalGeneration, state: Prefilled, options: GenerationOptions
) -> Callable[[Tensor], Tensor]:
    return StaticDecoder(model, state.cache, state.attention_mask, options.max_new_tokens - 1).step


def check_finite(logits: Tensor) -> None:
    """SfvqaError when the model computed what is no number."""
    if not bool(logits.isfinite().all()):
        raise SfvqaError(
            f"The model computed something that is no number ({str(logits.dtype).removeprefix('torch.')}).",
            "Use --dtype bfloat16 or float32; if it was one of these, the weights are damaged.",
        )


def _finish_reason(
    token_id: int, count: int, max_new_tokens: int, end_token_ids: frozenset[int]
) -> FinishReason | None:
    if token_id in end_token_ids:
        return FinishReason.STOP
    return FinishReason.LENGTH if count == max_new_tokens else None


def _require(condition: bool, what: str, wanted: str) -> None:
    if not condition:
        raise UsageError(f"{what}.", f"It must be {wanted}.")
