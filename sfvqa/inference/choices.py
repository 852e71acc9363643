"""Which of the given answers the model finds likeliest: their log-probabilities after a prompt, compared.

What is compared is the sum of the log-probabilities of a choice's tokens: the probability that the answer begins with
it. The softmax over these sums is then the probability of each, given that the answer begins with one of them. No
normalisation by length: lm-evaluation-harness reports that too (`acc_norm`, by bytes, against `acc`, the plain sum),
because it favours no short choice, but what comes out is no probability any more, and here it is reported as one. For
the letters of multiple choice, one token each, the two are the same.
Where one choice begins another ("left", "left and up") the shorter would always win; then, and only then, the end of
the answer belongs to each choice, so that the two exclude each other again.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from sfvqa.errors import UsageError
from sfvqa.inference.answer import (
    ChoiceProbability,
)
from sfvqa.inference.engine import check_finite
from sfvqa.inference.prefill import Prefilled
from sfvqa.model import SlowFastForConditionalGeneration

_WORTH_WARNING = 0.01
"""The share of the model's probability below which the choices together are hardly what it would say."""


def choice_token_ids(tokenizer: PreTrainedTokenizerBase, choices: Sequence[str], lead: str = "") -> list[list[int]]:
    """The tokens of each choice as the first ones of an answer, behind the `lead` that answers begin with.

    Special tokens written in it stay text.
    """
    texts = [f"{lead}{choice}" for choice in choices]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def ends_count(choices: Sequence[Sequence[int]]) -> bool:
    """Whether one choice begins another, so that the end of the answer has to tell them apart.

    >>> ends_count([[1], [2, 1]]), ends_count([[1], [1, 2]])
    (False, True)
    """
    return any(len(one) < len(other) and list(other[: len(one)]) == list(one) for one in choices for other in choices)


@torch.inference_mode()
def score_choices(
    model: SlowFastForConditionalGeneration,
    state: Prefilled,
    choices: Sequence[Sequence[int]],
    end_token_ids: frozenset[int],
) -> list[float]:
    """The log-probability of each choice after the prompt of `state`, a batch of one that is prefilled once.

    One pass a choice over the shared cache, which is cropped back afterwards: no copy of it is made, however many
    choices there are, and those of one token need no pass at all. Text tokens of a choice look at the slow tokens
    as those of an answer do. UsageError where an end has to count and the checkpoint has none.
    """
    with_end = ends_count(choices)
    if with_end and not end_token_ids:
        raise UsageError(
            "One choice begins another, and the checkpoint names no token that ends an answer to tell them apart.",
            "Give choices of which none begins another.",
        )
    first = _log_probabilities(state.logits)
    totals = []
    for ids in choices:
        given = list(ids if with_end else ids[:-1])
        following = first
        if given:
            tokens = torch.tensor([given], device=state.attention_mask.device)
            mask = torch.cat([state.attention_mask, torch.ones_like(tokens)], dim=1)
            logits = model(tokens, attention_mask=mask, cache=state.cache, use_cache=True).logits[0]
            state.cache.crop(-len(given))
            following = torch.cat([first, _log_probabilities(logits)])
        total = sum(float(following[place, token_id]) for place, token_id in enumerate(ids))
        if with_end:
            total += float(following[len(ids), sorted(end_token_ids)].logsumexp(dim=0))
        totals.append(total)
    return totals


def compare(choices: Sequence[str], log_probabilities: Sequence[float]) -> tuple[ChoiceProbability, ...]:
    """Each choice with its share of what they are likely together, in the order given; the shares add up to one.

    >>> [choice.probability for choice in compare(["yes", "no"], [math.log(0.2), math.log(0.2)])]
    [0.5, 0.5]
    """
    shares = torch.tensor(log_probabilities, dtype=torch.float64).softmax(dim=0).tolist()
    return tuple(map(ChoiceProbability, choices, shares, log_probabilities))


def unlikely_warning(choices: Sequence[ChoiceProbability]) -> list[str]:
    """The warning that the model would rather say none of them."""
    together = math.fsum(math.exp(choice.log_probability) for choice in choices)
    if together >= _WORTH_WARNING:
        return []
    return [
        f"The model would rather say something else: all choices together have a probability of {together:.2g}. "
        "Word them as it would answer, or ask for a letter and give the letters as choices."
    ]


def _log_probabilities(logits: Tensor) -> Tensor:
    """`[n, V]`, in float32, on the CPU."""
    check_finite(logits)
    return logits.float().log_softmax(dim=-1).cpu()
