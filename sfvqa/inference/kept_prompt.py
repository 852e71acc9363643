"""Prompts that begin alike: what they share is prefilled once, and its keys and values are forked for each."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch.nn import functional

from sfvqa.inference.generation import GenerationInputs, Prefilled, prefill, prefill_after
from sfvqa.model import IMAGE_TOKEN_ID, SlowAttention, SlowFastCache, SlowFastForConditionalGeneration, VisualTokens


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

    def after(self, length: int) -> SlowFastCache:
        """The cache behind the first `length` tokens, to go on from; the next prompt finds it as it was."""
        return self.cache.fork(length)


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


@torch.inference_mode()
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
        inputs = GenerationInputs.pad_left([prompt], [visual_tokens], model.device)
        return prefill(model, inputs, SlowAttention.ALWAYS), 0
    rest = GenerationInputs.pad_left([prompt[shared:]], [None], model.device)
    return prefill_after(model, kept.after(shared), rest), shared


@torch.inference_mode()
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
            return _prefill_padded(model, prompts, visual_tokens), [0] * len(prompts)
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
        beginning = _prefill_padded(model, [about[0][:shared]], [video]).cache
        with around_ends(about_one):
            parts.append(_prefill_forked(model, beginning, [prompt[shared:] for prompt in about]))
        rows += about_one
        for row in about_one[1:]:
            num_reused[row] = shared
    if alone:
        with around_ends(alone):
            parts.append(_prefill_padded(model, [prompts[row] for row in alone], [visual_tokens[row] for row in alone]))
        rows += alone
    return _in_order(parts, rows), num_reused


def _by_video(visual_tokens: Sequence[VisualTokens | None]) -> list[list[int]]:
    """The places of each video."""
    places: dict[int, list[int]] = {}
    for place, tokens in enumerate(visual_tokens):
        places.setdefault(id(tokens), []).append(place)
    return list(places.values())


def _prefill_padded(
    model: SlowFastForConditionalGeneration,
    prompts: Sequence[Sequence[int]],
    visual_tokens: Sequence[VisualTokens | None],
) -> Prefilled:
    return prefill(model, GenerationInputs.pad_left(prompts, visual_tokens, model.device), SlowAttention.ALWAYS)


def _prefill_forked(
    model: SlowFastForConditionalGeneration, beginning: SlowFastCache, rests: Sequence[Sequence[int]]
) -> Prefilled:
    """Prefill what follows a beginning; the rests are padded on the left, between beginning and rest."""
    beginning.batch_repeat_interleave(len(rests))
    inputs = GenerationInputs.pad_left(rests, [None] * len(rests), model.device)
    return prefill_after(model, beginning, inputs)


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
