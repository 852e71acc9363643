"""Prompts that begin alike: what they share is prefilled once, and its keys and values are forked for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

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

    def num_shared_with(self, prompt: Sequence[int], visual_tokens: VisualTokens | None) -> int:
        """How many first tokens of a prompt need no prefill; its last one always does, since its logits are wanted."""
        if visual_tokens is not self.visual_tokens:
            return 0
        return num_shared([self.token_ids, prompt[:-1]])

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
) -> tuple[Prefilled, int]:
    """Prefill a prompt behind what is kept of it; also the number of tokens that needed none."""
    shared = kept.num_shared_with(prompt, visual_tokens) if kept else 0
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
) -> tuple[Prefilled, int]:
    """Prefill a batch; where all are about one video, what the prompts begin with goes through the model once.

    Also the number of tokens that were shared so. The rests are padded on the left, between beginning and rest.
    """
    shared = 0
    if len(prompts) > 1 and all(tokens is visual_tokens[0] for tokens in visual_tokens):
        shared = num_shared([prompt[:-1] for prompt in prompts])
    if not shared:
        inputs = GenerationInputs.pad_left(prompts, visual_tokens, model.device)
        return prefill(model, inputs, SlowAttention.ALWAYS), 0
    beginning = GenerationInputs.pad_left([prompts[0][:shared]], visual_tokens[:1], model.device)
    cache = prefill(model, beginning, SlowAttention.ALWAYS).cache
    cache.batch_repeat_interleave(len(prompts))
    rests = GenerationInputs.pad_left([prompt[shared:] for prompt in prompts], [None] * len(prompts), model.device)
    return prefill_after(model, cache, rests), shared
