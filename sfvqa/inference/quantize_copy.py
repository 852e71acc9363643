"""Making a quantized copy of a registered model, tensor by tensor, in a folder that appears when it is whole."""

import json
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from sfvqa.errors import SfvqaError, UsageError
from sfvqa.inference.copy_folders import alone_with, copy_folder
from sfvqa.inference.device import memory_errors, resolve_device
from sfvqa.inference.host_memory import return_large_blocks
from sfvqa.inference.locate import TOKENIZER_FILES, CheckpointLocation, find, locate_registered
from sfvqa.inference.quantization import resolve_quantization
from sfvqa.inference.quantized_copies import Provenance, QuantizedCopy, find_copy
from sfvqa.inference.revision import revision_of
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.quantization import LinearQuantizer, Quantization, quantization_config, quantizer_for
from sfvqa.model.shard_writing import write_shards
from sfvqa.model.stored import StoredModel
from sfvqa.registry import ModelSpec
from sfvqa.wording import readable_size

_ROOM = 1.05
_COPIED = (
    *TOKENIZER_FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json", "generation_config.json"),
)
_PACKAGES = ("sfvqa", "torch", "transformers", "bitsandbytes")


def quantize_copy(model: str, quantization: str, *, device: str = "auto", force: bool = False) -> QuantizedCopy:
    """Keep a copy of a registered model that is on this machine; `force` replaces one of the same commit.

    The weights are quantized on `device`, a tensor at a time. Raises UsageError for a folder, for `none` and for a
    copy that is there already, ModelError as loading does and when another process makes the same copy, SfvqaError
    when the disk is too full.
    """
    spec = find(model)
    if not isinstance(spec, ModelSpec):
        raise UsageError(f"{model} is a checkpoint folder.", "Name a registered model; see `sfvqa models list`.")
    return_large_blocks()
    where = resolve_device(device)
    kind = resolve_quantization(quantization, where, Quantization.NONE)
    quantizer = quantizer_for(kind)
    if quantizer is None:
        raise UsageError(f"--quant {quantization} changes nothing.", "Use --quant 4bit or 8bit.")
    location = locate_registered(spec)
    revision = revision_of(location)
    assert revision is not None
    target = copy_folder(spec.name, kind)
    if not force and find_copy(spec, kind, revision):
        raise UsageError(f"There is a {kind} copy of {spec.name} already, in {target}.", "Use --force to replace it.")
    stored = StoredModel.of(location.folder, SlowFastForConditionalGeneration)
    _check_disk(target, _bytes_needed(stored, quantizer))
    provenance = Provenance(spec.name, spec.repo_id, revision, kind.value, where.type, _versions())
    with alone_with(spec.name, kind) as partial:
        folder = partial / target.name
        folder.mkdir()
        with memory_errors("quantizing the model"):
            write_shards(_quantized(stored, quantizer, where), folder)
        _write_rest(location, stored, kind, folder)
        provenance.write(folder)
        if target.exists():
            target.rename(partial / "replaced")
        folder.rename(target)
    copy = find_copy(spec, kind, revision)
    assert copy is not None
    return copy


def _quantized(
    stored: StoredModel, quantizer: LinearQuantizer, device: torch.device
) -> Iterator[list[tuple[str, Tensor]]]:
    """Every tensor by our name, as stored, or in the parts its quantized weight is stored in."""
    for name, parts in stored.tensors():
        if name in stored.quantizable:
            found = quantizer.stored_tensors(quantizer.quantize(parts["weight"].to(device)))
            yield [(quantizer.tensor_name(name, key), tensor) for key, tensor in found.items()]
        else:
            yield [(name, parts["weight"])]


def _bytes_needed(stored: StoredModel, quantizer: LinearQuantizer) -> int:
    """About what a copy takes on disk: a byte or half of one a quantized weight, and the rest as stored."""
    bits = {Quantization.EIGHT_BIT: 8, Quantization.FOUR_BIT: 4.2}[quantizer.kind]
    quantized = sum(stored.shapes[name].numel() for name in stored.quantizable)
    total = sum(stored.shapes[name].numel() for name in stored.parts)
    return int(quantized * bits / 8 + (total - quantized) * stored.dtype.itemsize)


def _check_disk(target: Path, size_bytes: int) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(target.parent).free
    except OSError as error:
        raise SfvqaError(f"{target.parent} cannot be written: {error}.", "Set SFVQA_DATA_DIR to a folder.") from error
    if free < size_bytes * _ROOM:
        raise SfvqaError(
            f"The copy takes {readable_size(size_bytes)} and {target.parent} has {readable_size(free)} free.",
            "Free some space, or set SFVQA_DATA_DIR to a folder on another disk.",
        )


def _write_rest(location: CheckpointLocation, stored: StoredModel, kind: Quantization, folder: Path) -> None:
    for name in _COPIED:
        if (location.folder / name).is_file():
            shutil.copyfile(location.folder / name, folder / name)
    stored.config.save_pretrained(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8-sig"))
    fields["quantization_config"] = quantization_config(kind)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _PACKAGES}
