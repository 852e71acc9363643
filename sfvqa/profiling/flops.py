"""Floating-point operations of each part of the network, by formula over its sizes. No torch; the counter is beside it.

A multiplication and an addition count as two; norms, RoPE, softmax and gates are left out, as in FlopCounterMode.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from sfvqa.registry import Architecture, FastTokens


@dataclass(frozen=True)
class Flops:
    """What one question about a video takes: all its frames, the pass over the prompt, one more token.

    `cross_attention` is the part of `prefill` that the slow tokens add: their keys and values in every hybrid layer,
    and the attention of those that look at them. `decode_per_token` has the looking of one token in it.
    """

    vision_tower: float
    projector: float
    prefill: float
    cross_attention: float
    decode_per_token: float

    def to_dict(self) -> dict[str, float]:
        """By name, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PromptSize:
    """Tokens of a prompt (`length`, fast ones among them), slow tokens beside it, and how many tokens look at those."""

    length: int
    num_slow: int = 0
    num_looking: int = 0


def prompt_size(sizes: Architecture, fast: FastTokens, num_frames: int, num_text: int) -> PromptSize:
    """Of a video of `num_frames` frames and `num_text` text tokens, all of which look at the slow tokens.

    >>> from sfvqa.registry import find_model
    >>> spec = find_model("slowfast-7b-64f")
    >>> prompt_size(spec.architecture, spec.fast_tokens, 64, num_text=50)
    PromptSize(length=1346, num_slow=5184, num_looking=50)
    """
    cells = (sizes.grid_side(num_frames) // fast.spatial_stride) ** 2
    return PromptSize(
        fast.num_averages(num_frames) * cells + num_text,
        num_slow=sizes.num_visual_tokens(num_frames),
        num_looking=num_text,
    )


def count_by_formula(sizes: Architecture, num_frames: int, prompt: PromptSize, position: int | None = None) -> Flops:
    """All parts, as FlopCounterMode counts them; `position` is how many tokens the decoded one can see, itself included
    (default: the first behind the prompt).
    """
    return Flops(
        vision_tower=num_frames * vision_flops(sizes),
        projector=num_frames * projector_flops(sizes),
        prefill=prefill_flops(sizes, prompt),
        cross_attention=cross_attention_flops(sizes, prompt.num_slow, prompt.num_looking),
        decode_per_token=decode_flops(sizes, position or prompt.length + 1, prompt.num_slow),
    )


def vision_flops(sizes: Architecture) -> float:
    """Of the vision tower on one frame."""
    total = 0.0
    for stage, (depth, dim) in enumerate(zip(sizes.vision_depths, sizes.vision_dims, strict=True)):
        cells = (sizes.image_size // (4 * 2**stage)) ** 2
        before = 3 * 16 * dim if stage == 0 else 4 * sizes.vision_dims[stage - 1] * dim
        total += 2 * cells * (before + depth * (49 * dim + 8 * dim**2))
    return total


def projector_flops(sizes: Architecture) -> float:
    """Of the projector on one frame, whose cells are pooled, if at all, behind it."""
    cells = (sizes.image_size // sizes.vision_stride) ** 2
    return 2.0 * cells * (sizes.vision_dims[-1] + sizes.hidden_size) * sizes.hidden_size


def prefill_flops(sizes: Architecture, prompt: PromptSize, *, skip_masked: bool = False) -> float:
    """Of the pass over a prompt, cross-attention included; lm_head computes the last position's logits only.

    Counted are all scores, those that the causal mask hides too; a kernel that skips them needs half (`skip_masked`).
    """
    linear = 2.0 * prompt.length * sizes.num_decoder_linear_weights
    scores = prompt.length**2 / (2 if skip_masked else 1)
    attention = 4.0 * scores * sizes.query_size * sizes.num_layers
    slow = cross_attention_flops(sizes, prompt.num_slow, prompt.num_looking)
    return linear + attention + slow + _head_flops(sizes)


def cross_attention_flops(sizes: Architecture, num_slow: int, num_looking: int) -> float:
    """Of the slow tokens' keys and values, and of `num_looking` tokens that look at them, in all hybrid layers."""
    if not num_slow:
        return 0.0
    return slow_keys_values_flops(sizes, num_slow) + num_looking * _looking_flops(sizes, num_slow)


def slow_keys_values_flops(sizes: Architecture, num_slow: int) -> float:
    """Of the slow tokens' keys and values in all hybrid layers: what the reference computes again for every token."""
    return 4.0 * num_slow * sizes.hidden_size * sizes.key_value_size * len(sizes.hybrid_layers)


def decode_flops(sizes: Architecture, position: int, num_slow: int) -> float:
    """Of one more token that sees `position` tokens, itself included, and looks at kept slow keys and values."""
    linear = 2.0 * sizes.num_decoder_linear_weights
    attention = 4.0 * position * sizes.query_size * sizes.num_layers
    return linear + attention + _looking_flops(sizes, num_slow) + _head_flops(sizes)


def overhead(sizes: Architecture, fast: FastTokens, num_frames: int, num_text: int, *, skip_masked: bool) -> float:
    """How much more the prefill of `num_frames` slow-fast frames takes than the same prompt with self-attention only.

    >>> from sfvqa.registry import find_model
    >>> spec = find_model("slowfast-7b-64f")
    >>> round(100 * overhead(spec.architecture, spec.fast_tokens, 64, 50, skip_masked=True), 2)
    0.93
    """
    prompt = prompt_size(sizes, fast, num_frames, num_text)
    slow_fast = prefill_flops(sizes, prompt, skip_masked=skip_masked)
    return slow_fast / prefill_flops(sizes, PromptSize(prompt.length), skip_masked=skip_masked) - 1


def num_text_for_overhead(overhead_at: Callable[[int], float], wanted: float, most: int) -> int | None:
    """The least number of text tokens at which `overhead_at` reaches `wanted`, None where none up to `most` does.

    Tried one by one: it grows with the tokens that look, and falls again where self-attention outgrows everything.

    >>> num_text_for_overhead(lambda num_text: num_text / 1000, 0.03, 500)
    30
    """
    return next((num_text for num_text in range(1, most + 1) if overhead_at(num_text) >= wanted), None)


def _looking_flops(sizes: Architecture, num_slow: int) -> float:
    """Of one token that looks at slow keys and values, with its gate, in all hybrid layers."""
    if not num_slow:
        return 0.0
    return (4.0 * num_slow + 2.0) * sizes.query_size * len(sizes.hybrid_layers)


def _head_flops(sizes: Architecture) -> float:
    return 2.0 * sizes.vocab_size * sizes.hidden_size
