"""`python -m sfvqa.lab.measurements.prefill_cost`: what more frames cost the LLM, by formula and counted at full size.

Nothing is loaded: the network is built without memory, and torch counts its operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from sfvqa.checkpoints.plan import config_of
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.model import SlowFastCache, SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.hybrid_layer import LookingPositions, SlowKeysValues
from sfvqa.model.loading import build_empty
from sfvqa.profiling.floors import counter
from sfvqa.profiling.measuring import fast_tokens_for
from sfvqa.registry import find_model
from sfvqa.registry.architecture import PromptSize, prefill_flops, prompt_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from sfvqa.registry import Architecture, FastTokens, ModelSpec

CLAIM = 0.03  # the paper's, of 128 frames against 16


@torch.inference_mode()
def count_prefill_on_meta(config: SlowFastConfig, prompt: PromptSize) -> float:
    """The pass over a prompt, counted on the network without memory, so that the full size can be; sdpa, as a rule."""
    model = build_empty(SlowFastForConditionalGeneration, config, "sdpa")
    width = config.decoder_config.hidden_size
    with torch.device("meta"):
        looking = LookingPositions(
            torch.empty(1, prompt.num_looking, dtype=torch.long), torch.empty(1, prompt.num_looking, dtype=torch.bool)
        )
        tokens, embeddings = torch.empty(1, prompt.num_slow, width), torch.empty(1, prompt.length, width)
        slow = {}
        with counter() as counted:
            for layer_idx in config.hybrid_layers if prompt.num_slow else ():
                keys, values = model.language_model.layers[layer_idx].self_attn.project_slow(tokens)
                slow[layer_idx] = SlowKeysValues(keys, values, None, looking)
            states = model.language_model(
                inputs_embeds=embeddings, cache=SlowFastCache(config), use_cache=True, slow=slow
            ).last_hidden_state
            model.lm_head(states[:, -1:])
    return float(counted.get_total_flops())


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


@dataclass(frozen=True)
class PrefillCost:
    """Of one number of frames, beside self-attention alone on a prompt as long; FLOPs, and shares of the latter's.

    `needed` leaves out the scores that a causal mask hides, as fast kernels do; `counted` has them.
    """

    num_frames: int
    prompt: PromptSize
    flops: float
    overhead_by_formula: float
    overhead_counted: float
    overhead_needed: float
    all_in_self_attention: float


def prefill_cost(spec: ModelSpec, num_frames: int, num_text: int) -> PrefillCost:
    """What `num_frames` cost, with as many fast frames as in training."""
    sizes, config = spec.architecture, config_of(spec)
    fast = fast_tokens_for(spec.fast_tokens, num_frames)
    prompt = prompt_size(sizes, fast, num_frames, num_text)
    baseline, everything = PromptSize(prompt.length), PromptSize(prompt.num_slow + num_text)
    return PrefillCost(
        num_frames,
        prompt,
        flops=prefill_flops(sizes, prompt),
        overhead_by_formula=overhead(sizes, fast, num_frames, num_text, skip_masked=False),
        overhead_counted=count_prefill_on_meta(config, prompt) / count_prefill_on_meta(config, baseline) - 1,
        overhead_needed=overhead(sizes, fast, num_frames, num_text, skip_masked=True),
        all_in_self_attention=prefill_flops(sizes, everything, skip_masked=True)
        / prefill_flops(sizes, baseline, skip_masked=True),
    )


def num_text_at_claim(spec: ModelSpec, num_frames: int, *, skip_masked: bool) -> int | None:
    """With how many text tokens the prefill of `num_frames` takes the paper's 3 % more; None where it never does."""
    fast = fast_tokens_for(spec.fast_tokens, num_frames)
    overhead_at = partial(overhead, spec.architecture, fast, num_frames, skip_masked=skip_masked)
    return num_text_for_overhead(overhead_at, CLAIM, spec.architecture.max_position_embeddings)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.prefill_cost", __doc__)
    parser.add_argument("--model", default="slowfast-7b-64f", help="a name from `sfvqa models list`")
    parser.add_argument("--frames", type=int, nargs="*", default=[64, 96, 128])
    parser.add_argument("--text-tokens", type=int, default=50, help="of the prompt, its template included")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Print a table, and where the paper's 3 % is."""
    options = parse_arguments(arguments)
    spec = find_model(options.model)
    costs = [prefill_cost(spec, num_frames, options.text_tokens) for num_frames in options.frames]
    rows = [
        [
            str(cost.num_frames),
            f"{cost.prompt.length:,}",
            f"{cost.prompt.num_slow:,}",
            f"{cost.flops / 1e12:.3g} TFLOP",
            f"{cost.overhead_by_formula:+.2%}",
            f"{cost.overhead_counted:+.2%}",
            f"{cost.overhead_needed:+.2%}",
            f"{cost.all_in_self_attention:.1f}×",
        ]
        for cost in costs
    ]
    heads = ["frames", "fast and text tokens", "slow tokens", "prefill", "by formula", "counted"]
    heads += ["causal scores skipped", "all in self-attention"]
    print(markdown_table(heads, rows, num_texts=0))
    num_frames = options.frames[-1]
    where = [num_text_at_claim(spec, num_frames, skip_masked=skip) for skip in (False, True)]
    found = ["never" if num_text is None else f"at {num_text:,} text tokens" for num_text in where]
    print(f"{num_frames} frames take {CLAIM:.0%} more {found[0]}, or {found[1]} where causal scores are skipped.")


if __name__ == "__main__":
    main()
