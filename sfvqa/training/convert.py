"""`python -m sfvqa.training.convert`: a plain decoder folder of transformers becomes a slow-fast checkpoint folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sfvqa.errors import SfvqaError
from sfvqa.model import SlowFastVisionConfig
from sfvqa.training.conversion import ConversionOptions, SlowInit, convert
from sfvqa.training.vision_source import VisionSource

RANDOM = "random"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = ConversionOptions()
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.convert", description=__doc__)
    parser.add_argument("decoder", type=Path, help="folder with config.json, safetensors and tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    parser.add_argument(
        "--vision",
        required=True,
        help="whose vision tower: a registered model, a slow-fast checkpoint folder, a folder with a tower alone "
        "(config.json of model type slow_fast_vision, timm's tensor names), or `random` with the sizes below",
    )
    parser.add_argument("--image-size", type=int, default=64, help="of a random tower, in pixels")
    parser.add_argument("--vision-depths", type=_numbers, default=(2, 2), help="of a random tower, as 3,4,30,3")
    parser.add_argument("--vision-dims", type=_numbers, default=(32, 96), help="of a random tower")
    parser.add_argument("--hybrid-layers", type=_numbers, help="as 0,8,16,24 (default: every eighth from 0)")
    parser.add_argument("--slow-init", type=SlowInit, choices=list(SlowInit), default=defaults.slow_init)
    parser.add_argument("--temporal-stride", type=int, default=defaults.temporal_stride)
    parser.add_argument("--min-fast-frames", type=int, default=defaults.min_fast_frames)
    parser.add_argument("--video-pooling-stride", type=int, default=defaults.video_pooling_stride)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    return parser.parse_args(arguments)


def options_of(arguments: argparse.Namespace) -> tuple[VisionSource, ConversionOptions]:
    """What a command line asks for; ModelError when there is no such tower."""
    options = ConversionOptions(
        hybrid_layers=arguments.hybrid_layers,
        slow_init=arguments.slow_init,
        temporal_stride=arguments.temporal_stride,
        min_fast_frames=arguments.min_fast_frames,
        video_pooling_stride=arguments.video_pooling_stride,
        seed=arguments.seed,
    )
    if arguments.vision != RANDOM:
        return VisionSource.of(arguments.vision), options
    sizes = SlowFastVisionConfig(
        image_size=arguments.image_size, depths=arguments.vision_depths, dims=arguments.vision_dims
    )
    return VisionSource(sizes, seed=arguments.seed), options


def main(arguments: list[str] | None = None) -> int:
    """Convert, and say what came out."""
    asked = parse_arguments(arguments)
    try:
        vision, options = options_of(asked)
        config = convert(asked.decoder, vision, asked.out, options)
    except SfvqaError as error:
        print(error.with_flags, file=sys.stderr)
        return int(error.exit_code)
    layers = ", ".join(map(str, config.hybrid_layers))
    print(f"{asked.out}: {config.decoder_config.model_type} with hybrid layers {layers}")
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(int(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
