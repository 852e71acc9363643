"""`python -m sfvqa.lab.measurements.full_size`: a hybrid layer and a vision stage as large as the 7B's, run on the CPU.

Where no GPU is at hand they stand in for the whole network: its shapes, its precision in 16 bit, its time and memory.
Weights are random, so what is computed means nothing.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sfvqa.checkpoints.device import peak_memory_bytes
from sfvqa.checkpoints.plan import config_of
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.model import VisualTokens
from sfvqa.model.config import IMAGE_TOKEN_ID
from sfvqa.model.families.slowfast import ConvNextStage
from sfvqa.model.slow_fast import random_model
from sfvqa.registry import ModelSpec, find_model

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_NUM_TEXT_TOKENS = 50
_SMALL_VOCABULARY = 1024  # neither embeddings nor lm_head are what is looked at


@dataclass(frozen=True)
class Measured:
    """A part of the network on its own: `relative_error` is that of bfloat16 against float32, in the norm."""

    name: str
    num_parameters: int
    seconds: float
    bfloat16_seconds: float
    relative_error: float


def measure(name: str, module: nn.Module, run: Callable[[nn.Module, torch.dtype], Tensor], repeats: int) -> Measured:
    """Run a float32 module, then the same in bfloat16, and compare what comes out."""
    num_parameters = sum(weight.numel() for weight in module.parameters())
    exact, seconds = _timed(module, run, torch.float32, repeats)
    for weight in module.parameters():  # and no buffer: RoPE's frequencies stay as exact as in a model that is loaded
        weight.data = weight.data.to(torch.bfloat16)
    rounded, bfloat16_seconds = _timed(module, run, torch.bfloat16, repeats)
    error = (rounded.float() - exact).norm() / exact.norm()
    return Measured(name, num_parameters, seconds, bfloat16_seconds, float(error))


@torch.inference_mode()
def _timed(
    module: nn.Module, run: Callable[[nn.Module, torch.dtype], Tensor], dtype: torch.dtype, repeats: int
) -> tuple[Tensor, float]:
    """What comes out, and the median of the seconds it takes."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        output = run(module, dtype)
        seconds.append(time.perf_counter() - start)
    if not bool(output.isfinite().all()):
        raise ValueError(f"something that is no number came out in {dtype}")
    return output, statistics.median(seconds)


def measure_hybrid_layer(spec: ModelSpec, num_frames: int, repeats: int) -> Measured:
    """A network of one decoder layer, a hybrid one: the prompt of `num_frames` frames with all of their slow tokens."""
    num_stages = len(spec.architecture.vision_depths)
    sizes = replace(
        spec.architecture,
        num_layers=1,
        hybrid_layers=(0,),
        vocab_size=_SMALL_VOCABULARY,
        vision_depths=(1,) * num_stages,
        vision_dims=(4,) * num_stages,
    )
    model = random_model(config_of(replace(spec, architecture=sizes)), dtype=torch.float32)
    num_slow = sizes.num_visual_tokens(num_frames)
    num_fast = spec.fast_tokens.min_fast_frames * sizes.grid_side(num_frames) ** 2
    generator = torch.Generator().manual_seed(0)
    slow = torch.randn(num_slow, sizes.hidden_size, generator=generator)
    fast = slow[:: num_slow // num_fast][:num_fast]
    prompt = torch.cat([torch.full((num_fast,), IMAGE_TOKEN_ID), torch.arange(_NUM_TEXT_TOKENS)])[None]

    def run(_: nn.Module, dtype: torch.dtype) -> Tensor:
        tokens = VisualTokens(slow.to(dtype), fast.to(dtype))
        logits: Tensor = model(prompt, visual_tokens=[tokens], logits_to_keep=1).logits[:, -1]
        return logits

    name = f"hybrid layer, {prompt.shape[1]:,} prompt and {num_slow:,} slow tokens"
    measured = measure(name, model, run, repeats)
    layer = sum(weight.numel() for weight in model.language_model.layers.parameters())
    return replace(measured, num_parameters=layer)


def measure_vision_stage(spec: ModelSpec, repeats: int) -> Measured:
    """The stage of the vision tower with the most blocks, where most of its time goes, on one frame's feature map."""
    sizes = spec.architecture
    place = max(range(1, len(sizes.vision_depths)), key=lambda place: sizes.vision_depths[place])
    in_dim, dim, depth = sizes.vision_dims[place - 1], sizes.vision_dims[place], sizes.vision_depths[place]
    torch.manual_seed(0)
    stage = ConvNextStage(in_dim, dim, depth, 1e-5, downsample=True)
    for name, weight in stage.named_parameters():
        if name.endswith("gamma"):  # at its first value, next to nothing, the blocks would do nothing
            nn.init.constant_(weight, 0.5)
    side = sizes.image_size // (4 * 2 ** (place - 1))
    features = torch.randn(1, in_dim, side, side).contiguous(memory_format=torch.channels_last)
    name = f"vision stage {place + 1}, {depth} blocks of {dim}, one frame"
    return measure(name, stage, lambda module, dtype: module(features.to(dtype)), repeats)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.full_size", __doc__)
    parser.add_argument("--model", default="slowfast-7b-64f", help="a name from `sfvqa models list`")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Measure both and print a table."""
    options = parse_arguments(arguments)
    spec = find_model(options.model)
    measured = [
        measure_hybrid_layer(spec, spec.num_frames, options.repeats),
        measure_vision_stage(spec, options.repeats),
    ]
    rows = [
        [
            part.name,
            f"{part.num_parameters / 1e6:.0f} M",
            f"{part.seconds:.1f} s",
            f"{part.bfloat16_seconds:.1f} s",
            f"{part.relative_error:.2%}",
        ]
        for part in measured
    ]
    print(markdown_table(["part", "parameters", "float32", "bfloat16", "relative error of bfloat16"], rows))
    peak = peak_memory_bytes(torch.device("cpu"))
    print(f"Peak memory of the process: {(peak or 0) / 1e9:.1f} GB.")


if __name__ == "__main__":
    main()
