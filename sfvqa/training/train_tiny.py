"""`python -m sfvqa.training.train_tiny`: train the bundled checkpoint from nothing, with one command."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch

from sfvqa.training.other_videos import OtherVideos
from sfvqa.training.pictures import digest, load_pictures
from sfvqa.training.recipe import Recipe, Trainer, save_checkpoint
from sfvqa.training.tokenizer import train_tokenizer

logger = logging.getLogger(__name__)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.train_tiny", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/tiny/checkpoint"), help="where the checkpoint goes")
    parser.add_argument("--run", type=Path, default=Path("runs/tiny"), help="where the run keeps its state")
    parser.add_argument(
        "--pictures", type=Path, default=Path("runs/pictures"), help="what sfvqa.training.pictures made"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 …")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    parser.add_argument("--scale", type=float, default=1.0, help="length of every stage, as a share of the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the run folder")
    parser.add_argument("--write-only", action="store_true", help="write the saved state as a checkpoint")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Train, then write the checkpoint folder."""
    options = parse_arguments(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    began = time.monotonic()
    tokenizer = train_tokenizer(seed=options.seed)
    pictures = load_pictures(options.pictures)
    logger.info("%s, digest %s", options.pictures, digest(pictures))
    recipe = Recipe(seed=options.seed).scaled(options.scale)
    trainer = Trainer(recipe, tokenizer, options.run, OtherVideos(pictures), options.device)
    if options.resume or options.write_only:
        trainer.resume()
    if not options.write_only:
        trainer.run()
    save_checkpoint(trainer, options.output)
    logger.info("%s after %.1f minutes", options.output, (time.monotonic() - began) / 60)


if __name__ == "__main__":
    main()
