"""From prompts to what they leave in the model: what prompts share goes through it once, what is kept not again."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from sfvqa.model import IMAGE_TOKEN_ID, SlowFastCache, SlowFastForConditionalGeneration, VisualTokens


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
        length = min(cache.num_complete, len(token_ids))  # a step that began ahead of its turn is no token
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
    kept: list[KeptPrompt] | None = None,
) -> tuple[Prefilled, list[int]]:
    """Prefill a batch; what prompts about one video begin with goes through the model once, for the first of them.

    The other prompts go through it together. Also how many tokens of each prompt needed none so. At least `num_last`
    tokens of each prompt (its last one) go through in one pass, around which `around_ends` of its rows is entered.
    Where earlier batches left their beginnings in `kept`, prompts about these videos go on from there; what this batch
    is the first to begin with is added.
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
        about, video = [prompts[row] for row in about_one], visual_tokens[about_one[0]]
        begins = [prompts[row][: -num_last[row]] for row in about_one]
        earlier, shared = _kept_of(video, begins, kept or ())
        if earlier is None:
            shared = num_shared(begins) if len(about) > 1 else 0
        if earlier is None and kept is not None and not shared:
            shared = _num_to_keep(begins[0])
        if not shared:
            alone += about_one
            continue
        if earlier is not None:
            beginning = earlier.cache.fork(shared)
        else:
            beginning = prefill(model, [about[0][:shared]], [video]).cache
            if kept is not None and video is not None and shared >= _WORTH_KEEPING:
                kept.extend(filter(None, [KeptPrompt.of(about[0][:shared], video, beginning)]))
        if len(about) > 1:
            beginning.batch_repeat_interleave(len(about))
        with around_ends(about_one):  # the rests are padded between beginning and rest
            parts.append(prefill(model, [prompt[shared:] for prompt in about], None, after=beginning))
        rows += about_one
        for row in about_one[0 if earlier else 1 :]:
            num_reused[row] = shared
    if alone:
        with around_ends(alone):
            parts.append(prefill(model, [prompts[row] for row in alone], [visual_tokens[row] for row in alone]))
        rows += alone
    return in_order(parts, rows), num_reused


_WORTH_KEEPING = 256  # tokens: below, a pass of its own for the rest costs what it saves


def _kept_of(
    video: VisualTokens | None, begins: Sequence[Sequence[int]], kept: Sequence[KeptPrompt]
) -> tuple[KeptPrompt | None, int]:
    """The kept prompt that all these prompts about a video begin with, and for how many tokens; None if few or none."""
    for prompt in kept if video is not None else ():
        shared = num_shared([prompt.token_ids, *begins]) if prompt.visual_tokens is video else 0
        if shared >= _WORTH_KEEPING:
            return prompt, shared
    return None, 0


def _num_to_keep(prompt: Sequence[int]) -> int:
    """The tokens up to the end of a prompt's video, with which other questions about it will begin; 0 if too few."""
    end = max((place for place, token in enumerate(prompt, 1) if token == IMAGE_TOKEN_ID), default=0)
    return end if end >= _WORTH_KEEPING else 0


def _by_video(visual_tokens: Sequence[VisualTokens | None]) -> list[list[int]]:
    """The places of each video."""
    places: dict[int, list[int]] = {}
    for place, tokens in enumerate(visual_tokens):
        places.setdefault(id(tokens), []).append(place)
    return list(places.values())


@torch.inference_mode()
def in_order(parts: list[Prefilled], rows: Sequence[int]) -> Prefilled:
    """Parts of a batch as one, whose `rows` are where each row of the parts is to be."""
    is_in_order = list(rows) == sorted(rows)
    if len(parts) == 1 and is_in_order:
        return parts[0]
    longest = max(part.attention_mask.shape[1] for part in parts)
    mask = torch.cat(
        [functional.pad(part.attention_mask, (longest - part.attention_mask.shape[1], 0)) for part in parts]
    )
    logits = torch.cat([part.logits for part in parts])
    cache = SlowFastCache.stack([part.cache for part in parts])
    if is_in_order:  # to select them all would copy the cache once more
        return Prefilled(logits, mask, cache)
    order = torch.tensor(rows).argsort()
    cache.batch_select_indices(order)
    return Prefilled(logits[order], mask[order], cache)
