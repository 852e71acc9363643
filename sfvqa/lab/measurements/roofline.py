"""`python -m sfvqa.lab.measurements.roofline`: the least that a GPU needs for each stage, from what it is asked to do.

Computed, not measured: the product's own code runs on devices that are not there (`lab.fake_cuda`), and for each launch
the operations are divided by a GPU's rate of multiplication, the bytes by its bandwidth; the larger counts.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sfvqa.checkpoints.memory import static_room
from sfvqa.inference.encode import ChunkEncoder
from sfvqa.inference.engine import GenerationOptions, TokenChooser
from sfvqa.inference.prefill import prefill
from sfvqa.inference.video_qa import VideoQA
from sfvqa.lab.commands import command_parser, errors_without_traceback, markdown_table
from sfvqa.lab.fake_cuda.device import FakeCuda
from sfvqa.model import IMAGE_TOKEN_ID, RecordedSteps
from sfvqa.registry import QuantizationName

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


@dataclass(frozen=True)
class Gpu:
    """Dense products in bfloat16 a second, and bytes of its memory a second."""

    name: str
    flops_per_second: float
    bytes_per_second: float


GPUS = (Gpu("H200", 790e12, 4.3e12), Gpu("RTX 4090", 165e12, 1.0e12), Gpu("RTX 3060", 25.6e12, 0.36e12))
_RATES = (
    "Rates are from data sheets, not measured: 165 TFLOP/s and 1.0 TB/s for the RTX 4090, 25.6 and 0.36 for the "
    "RTX 3060; for the H200 80 % of its 989 TFLOP/s and 90 % of its 4.8 TB/s."
)


@dataclass
class Stage:
    """What the device is asked to do in one: launches, operations and bytes by kind, and the least seconds by GPU."""

    name: str
    launches: Counter[str] = field(default_factory=Counter)
    flops: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, Counter[str]] = field(default_factory=lambda: {gpu.name: Counter() for gpu in GPUS})

    def add(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Tensor]) -> None:
        """Take a launch into account."""
        kind, flops, num_bytes = cost_of(name, args, kwargs, outputs)
        self.launches[kind] += 1
        self.flops[kind] += flops
        self.bytes[kind] += num_bytes
        for gpu in GPUS:
            least = max(flops / gpu.flops_per_second, num_bytes / gpu.bytes_per_second)
            self.seconds[gpu.name][kind] += least  # type: ignore[assignment]

    def rows(self, num_kinds: int = 0) -> Iterator[list[str]]:
        """Of a table: all of it, then the kinds that take longest on the first GPU."""
        yield self._row(self.name, list(self.launches))
        for kind, _ in self.seconds[GPUS[0].name].most_common(num_kinds):
            yield self._row(f"… {kind}", [kind])

    def _row(self, name: str, kinds: list[str]) -> list[str]:
        flops, num_bytes, launches = (
            sum(counted[kind] for kind in kinds) for counted in (self.flops, self.bytes, self.launches)
        )
        milliseconds = [1000 * sum(self.seconds[gpu.name][kind] for kind in kinds) for gpu in GPUS]
        return [name, f"{launches:,}", *map(_short, (flops / 1e12, num_bytes / 1e9, *milliseconds))]


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}" if number >= 0.001 else "0"


def cost_of(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Tensor]) -> tuple[str, int, int]:
    """Kind, operations and bytes of a launch: every input is read once and every output written once, unless less of
    it is touched.

    >>> ones = torch.ones(2, 8, dtype=torch.bfloat16)
    >>> cost_of("linear", (ones, torch.ones(4, 8, dtype=torch.bfloat16)), {}, [torch.ones(2, 4, dtype=torch.bfloat16)])
    ('linear', 128, 112)
    """
    inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    read, written = sum(tensor.nbytes for tensor in inputs), sum(tensor.nbytes for tensor in outputs)
    match name:
        case "linear":
            return name, 2 * args[0].numel() * len(args[1]), read + written
        case "gemm_4bit":  # a half byte a weight, and a byte of scale for 64 of them
            states, (rows, columns) = args[0], args[2]
            weights = rows * columns // 2 + rows * columns // 64
            return name, 2 * states.numel() * rows, states.nbytes + weights + written
        case "conv2d":
            per_output = args[1][0].numel()
            kind = "depthwise convolution" if args[1].shape[1] == 1 else "convolution"
            return kind, 2 * outputs[0].numel() * per_output, read + written
        case "scaled_dot_product_attention":
            is_causal = args[5] if len(args) > 5 else kwargs.get("is_causal", False)
            flops = 4 * args[0].numel() * args[1].shape[-2]
            return "attention", flops // 2 if is_causal else flops, read + written
        case "embedding" | "index_select" | "index":
            return name, 0, 2 * written
        case "index_copy_":
            return name, 0, 2 * args[3].nbytes
        case "copy_":
            return name, 0, args[1].nbytes + written
        case _:
            return name, 0, read + written


def roofline(model: str, quantization: QuantizationName, num_frames: int, num_text: int) -> list[Stage]:
    """The stages of a question, as the product runs them on one GPU."""
    cuda, stages = FakeCuda(), []

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        stages.append(Stage(name))
        cuda.watch.on_launch = stages[-1].add
        yield
        cuda.watch.on_launch = None

    with cuda, torch.inference_mode():
        network = VideoQA.load(
            model, device="cuda:0", random_weights=True, quantization=quantization.value
        ).checkpoint.model
        side = network.config.vision.image_size
        encoder = ChunkEncoder(network, quantization)
        with stage(f"vision tower, {num_frames} frames"):
            for start in range(0, num_frames, 8):
                encoder.add(np.zeros((min(8, num_frames - start), side, side, 3), np.uint8), num_frames)
        with stage("slow and fast tokens"):
            tokens = network.split(encoder.visual_tokens())
        before = num_text // 2
        prompt = [1] * before + [IMAGE_TOKEN_ID] * len(tokens.fast) + [2] * (num_text - before)
        with stage(f"prefill, {len(prompt):,} tokens"):
            state = prefill(network, [prompt], [tokens])
        options = GenerationOptions()
        room = static_room(len(prompt) + options.max_new_tokens)
        step = RecordedSteps().begin(network, state.cache, state.attention_mask, room)
        assert step is not None
        chooser = TokenChooser(options, 1, network.device)
        chosen = chooser.choose(step(chooser.choose(state.logits).ids))
        with stage("a token"):
            chooser.choose(step(chosen.ids)).wait()
    return stages


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("measurements.roofline", __doc__)
    parser.add_argument("--model", default="slowfast-7b-64f", help="a name from `sfvqa models list`")
    parser.add_argument("--quant", type=QuantizationName, default="none", choices=["none", "4bit"])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--text-tokens", type=int, default=50, help="of the prompt, its template included")
    parser.add_argument("--kinds", type=int, default=5, help="how many rows a stage has for what takes longest in it")
    return parser.parse_args(arguments)


@errors_without_traceback()
def main(arguments: list[str] | None = None) -> None:
    """Print a table."""
    options = parse_arguments(arguments)
    stages = roofline(options.model, options.quant, options.frames, options.text_tokens)
    heads = ["computed, not measured", "launches", "TFLOP", "GB", *(f"ms on {gpu.name}" for gpu in GPUS)]
    print(markdown_table(heads, [row for stage in stages for row in stage.rows(options.kinds)]))
    print(f"\n{_RATES}")


if __name__ == "__main__":
    main()
