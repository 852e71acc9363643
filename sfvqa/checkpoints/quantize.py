"""Write new checkpoint folders tensor by tensor, each appearing only when complete; quantize models."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sfvqa.checkpoints.device import memory_errors, resolve_device
from sfvqa.checkpoints.find import CheckpointLocation, locate
from sfvqa.checkpoints.host import return_large_blocks
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.checkpoints.load import load_tokenizer
from sfvqa.checkpoints.placement import resolve_quantization
from sfvqa.errors import SfvqaError, UsageError
from sfvqa.model import SlowFastConfig, SlowFastForConditionalGeneration
from sfvqa.model.loading import StoredModel
from sfvqa.model.quantization import (
    LinearQuantizer,
    Quantization,
    quantizable_linears,
    quantization_config,
    quantizer_for,
    stored_name,
)
from sfvqa.wording import readable_size

SHARD_BYTES = 500_000_000  # what a file adds to the memory while it is written, and when it is loaded


def write_shards(tensors: Iterable[list[tuple[str, Tensor]]], folder: Path) -> None:
    """Write files of about SHARD_BYTES and their index; the tensors of one list stay in one file."""
    weight_map: dict[str, str] = {}
    waiting: dict[str, Tensor] = {}
    num_files = 0

    def write() -> None:
        nonlocal num_files
        num_files += 1
        file = f"model-{num_files:05d}.safetensors"
        save_file(waiting, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(waiting, file))
        waiting.clear()

    for parts in tensors:
        size = sum(tensor.nbytes for _, tensor in parts)
        if waiting and sum(tensor.nbytes for tensor in waiting.values()) + size > SHARD_BYTES:
            write()
        waiting.update((name, tensor.to("cpu", copy=True).contiguous()) for name, tensor in parts)
    write()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def check_new(out: Path) -> None:
    """Raise UsageError if the folder of a new checkpoint already exists."""
    if out.exists():
        raise UsageError(f"{out} already exists.", "Name a folder that does not exist yet.")


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `out` on success; UsageError if it cannot be created."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{out.parent} cannot be written to: {reason}.", "Name another folder.") from error
    with beside as unfinished:
        folder = Path(unfinished) / out.name
        folder.mkdir()
        yield folder
        folder.rename(out)


_ROOM = 1.05


def quantize(model: str | Path, out: Path, quantization: str, *, device: str = "auto") -> CheckpointLocation:
    """Write a local model, quantized, to a new folder `out`; return the location of the original.

    The weights are quantized on `device`, a tensor at a time, and `out` loads as any folder does. Raises UsageError for
    a folder that is there, for `none` and for a model that is quantized already, ModelError as loading does, SfvqaError
    when the disk is too full.
    """
    check_new(out)
    return_large_blocks()
    where = resolve_device(device)
    kind = resolve_quantization(quantization, where, Quantization.NONE)
    quantizer = quantizer_for(kind)
    if quantizer is None:
        raise UsageError(f"--quant {quantization} changes nothing.", "Use --quant 4bit or 8bit.")
    location = locate(model)
    stored = StoredModel.of(location.folder, SlowFastForConditionalGeneration)
    if stored.quantization is not Quantization.NONE:
        raise UsageError(f"{model} is already quantized to {stored.quantization}.", "Name the original model.")
    with appearing(out) as folder:
        size, free = _bytes_needed(stored, quantizer), shutil.disk_usage(folder).free
        if free < size * _ROOM:
            raise SfvqaError(
                f"The quantized model needs {readable_size(size)}, but the disk of {out.parent.absolute()} has only "
                f"{readable_size(free)} free.",
                "Free some space, or name a folder on another disk.",
            )
        with memory_errors("quantizing the model"):
            write_shards(_quantized(stored, quantizer, where), folder)
        write_rest(location, stored.config, folder)
        path = folder / "config.json"
        fields = json.loads(path.read_text(encoding="utf-8-sig"))
        fields["quantization_config"] = quantization_config(kind)
        path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    return location


def _quantized(
    stored: StoredModel, quantizer: LinearQuantizer, device: torch.device
) -> Iterator[list[tuple[str, Tensor]]]:
    """Every tensor by our name, as stored, or in the parts its quantized weight is stored in."""
    linears = quantizable_linears(stored.network)
    for name, parts in stored.tensors():
        if name.removesuffix(".weight") in linears:
            found = quantizer.stored_tensors(quantizer.quantize(parts["weight"].to(device)))
            yield [(stored_name(name, key), tensor) for key, tensor in found.items()]
        else:
            yield [(name, parts["weight"])]


def _bytes_needed(stored: StoredModel, quantizer: LinearQuantizer) -> int:
    """About what it takes on disk: a byte or half of one a quantized weight, and the rest as stored."""
    bits = {Quantization.EIGHT_BIT: 8, Quantization.FOUR_BIT: 4.2}[quantizer.kind]
    quantized = sum(linear.weight.numel() for linear in quantizable_linears(stored.network).values())
    shapes = stored.network.state_dict()
    total = sum(shapes[name].numel() for name in stored.parts)
    return int(quantized * bits / 8 + (total - quantized) * stored.dtype.itemsize)


def write_rest(
    location: CheckpointLocation, config: SlowFastConfig, folder: Path, trained: TrainedWith | None = None
) -> None:
    """Write all but the tensors of what is made of a model: its tokenizer, and the config.

    That also has how the model looked at videos in training, by `trained`, else by models.toml.
    """
    spec = location.spec
    load_tokenizer(location.folder, config).save_pretrained(folder)  # anew: which class it has, other files may say
    if (generation := location.folder / "generation_config.json").is_file():
        shutil.copyfile(generation, folder / generation.name)
    if trained is None:
        trained = TrainedWith.of(spec, config.training_num_frames, config.training_sampling, config.training_crop)
    config.training_num_frames, config.training_sampling = trained.num_frames, trained.strategy
    config.training_crop = trained.crop
    config.training_max_length = (spec and spec.training_max_length) or config.training_max_length
    config.save_pretrained(folder)
