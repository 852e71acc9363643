"""Baselines for the slow-fast computation: other modes of the same model on the same visual tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from sfvqa.inference.engine import GenerationOptions, TokenChooser, decode
from sfvqa.inference.prefill import Prefilled, prefill
from sfvqa.inference.stopwatch import Stopwatch
from sfvqa.model import DecodeStep, SlowFastCache, SlowFastForConditionalGeneration, VisualTokens


class Baseline(StrEnum):
    """A mode of the model other than its own."""

    SELF_ATTENTION_ONLY = "self_attention_only"
    """As many frames as there are fast frames, 16 as released; all their tokens stand in the prompt, nothing else."""
    ALL_IN_SELF_ATTENTION = "all_in_self_attention"
    """All frames, all their visual tokens in the prompt and no slow ones: what the architecture replaces."""
    SLOW_RECOMPUTED = "slow_recomputed"
    """The slow keys and values computed again for every new token, as the published reference does."""


@dataclass(frozen=True)
class BaselineRun:
    """The times of one run of a mode, and the tokens it wrote."""

    prefill_seconds: float
    decode_seconds_per_token: float
    token_ids: tuple[int, ...]


@torch.inference_mode()
def run_baseline(
    model: SlowFastForConditionalGeneration,
    mode: Baseline,
    prompt: Sequence[int],
    tokens: VisualTokens,
    num_new_tokens: int,
) -> BaselineRun:
    """Prefill a prompt, whose placeholders stand for `tokens.fast`, and decode `num_new_tokens` tokens greedily."""
    recomputes = mode is Baseline.SLOW_RECOMPUTED
    watch, decode_watch = Stopwatch(model.device), Stopwatch(model.device)
    with watch:
        state = prefill(model, [prompt], [tokens]) if recomputes else _prefill_self_attention(model, prompt, tokens)
    step = None
    if not recomputes and DecodeStep.is_possible(model):
        step = DecodeStep(model, state.cache, state.attention_mask, num_new_tokens - 1)
    chooser = TokenChooser(GenerationOptions(), 1, model.device)
    chosen = chooser.choose(state.logits)
    written = chosen.wait()
    for _ in range(num_new_tokens - 1):
        with decode_watch:
            if recomputes:
                state = _decode_recomputing(model, tokens.slow, state, chosen.ids)
            elif step is not None:
                state = replace(state, logits=step(chosen.ids))
            else:
                state = decode(model, state, chosen.ids)
            chosen = chooser.choose(state.logits)
            written += chosen.wait()
    return BaselineRun(watch.seconds, decode_watch.seconds / (num_new_tokens - 1), tuple(written))


def _prefill_self_attention(
    model: SlowFastForConditionalGeneration, prompt: Sequence[int], tokens: VisualTokens
) -> Prefilled:
    """The prompt as embeddings, without slow tokens: the hybrid layers are plain decoder layers then."""
    cache, ids = SlowFastCache(model.config), torch.tensor([prompt], device=model.device)
    mask = torch.ones_like(ids)
    embeddings = model.embed(ids, [tokens])
    output = model(inputs_embeds=embeddings, attention_mask=mask, cache=cache, use_cache=True, logits_to_keep=1)
    return Prefilled(output.logits[:, -1], mask, cache)


def _decode_recomputing(
    model: SlowFastForConditionalGeneration, slow: Tensor, state: Prefilled, token_ids: Tensor
) -> Prefilled:
    """One more token, with the slow tokens given again: every hybrid layer projects them anew."""
    ids = token_ids[:, None].to(model.device)
    mask = torch.cat([state.attention_mask, state.attention_mask.new_ones(len(ids), 1)], dim=1)
    output = model(
        inputs_embeds=model.get_input_embeddings()(ids),
        attention_mask=mask,
        cache=state.cache,
        use_cache=True,
        is_text=torch.ones_like(ids, dtype=torch.bool),
        slow_tokens=slow[None],
        slow_mask=torch.ones(1, len(slow), dtype=torch.bool, device=slow.device),
    )
    return Prefilled(output.logits[:, -1], mask, state.cache)
