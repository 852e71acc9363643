"""`python -m sfvqa.training.merge`: make one checkpoint folder of a model and its LoRA adapter, tensor by tensor.

The result answers as `--model MODEL --adapter FOLDER` does, and needs neither.
"""

import argparse
import sys
from pathlib import Path

from sfvqa.checkpoints.adapter import Adapter
from sfvqa.checkpoints.find import identify_checkpoint, locate
from sfvqa.checkpoints.known import trained_with_adapter
from sfvqa.checkpoints.load import check_checkpoint
from sfvqa.checkpoints.quantize import appearing, check_new, write_rest, write_shards
from sfvqa.errors import ExitCode
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.loading import StoredModel
from sfvqa.training.command import run
from sfvqa.training.origin import write_origin
from sfvqa.wording import command_line


def merge(model: str | Path, adapter: str | Path, out: Path) -> tuple[str, ...]:
    """Write `out`, a folder that appears when it is whole; return warnings about the adapter.

    Weights keep their dtype, and those that the adapter holds whole (slow attention) keep its own, float32, also where
    the model is in 16 bits; those of a quantized model become what they stand for. At most a file's worth of tensors
    is in memory beside the adapter. UsageError when `out` is there already or cannot be written; ModelError.
    """
    check_new(out)
    found, location = Adapter.of(adapter), locate(model)
    stored = StoredModel.of(location.folder, SlowFastForConditionalGeneration)
    stored.config.dtype = stored.dtype
    with appearing(out) as folder:
        merged = found.tensors(stored).merge(stored)
        write_shards(([(name, parts["weight"])] for name, parts in merged), folder)
        write_rest(location, stored.config, folder, trained_with_adapter(found) if found.trained else None)
        write_origin(folder, model, adapter)
        check_checkpoint(folder)
    return found.warnings(location.name, identify_checkpoint(location, random_weights=False))


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sfvqa.training.merge", description=__doc__)
    parser.add_argument("model", help="what the adapter was trained on: a registered model, or a checkpoint folder")
    parser.add_argument("--adapter", type=Path, required=True, help="the adapter's folder")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write; it must not exist")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Merge, and print the result."""
    asked = parse_arguments(arguments)

    def merge_and_tell() -> int:
        for warning in merge(asked.model, asked.adapter, asked.out):
            print(warning, file=sys.stderr)
        print(f"{asked.out}: ask it with `sfvqa ask VIDEO QUESTION --model {command_line([asked.out])}`")
        return ExitCode.OK

    return run(merge_and_tell, stopped=f"Stopped: {asked.out} was not written.")


if __name__ == "__main__":
    sys.exit(main())
