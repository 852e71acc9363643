"""A model → a checkpoint folder with the decoder in fewer bits, tensor by tensor; it appears when it is whole."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from sfvqa.checkpoints.device import memory_errors, resolve_device, resolve_quantization
from sfvqa.checkpoints.find import TOKENIZER_FILES, CheckpointLocation, locate
from sfvqa.checkpoints.host_memory import return_large_blocks
from sfvqa.checkpoints.known import TrainedWith
from sfvqa.errors import SfvqaError, UsageError
from sfvqa.model import SlowFastForConditionalGeneration
from sfvqa.model.checkpoint_files import appearing, check_new, write_shards
from sfvqa.model.loading import StoredModel
from sfvqa.model.quantization import LinearQuantizer, Quantization, quantization_config, quantizer_for
from sfvqa.wording import readable_size

_ROOM = 1.05
_COPIED = (
    *TOKENIZER_FILES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json", "generation_config.json"),
)


def quantize(model: str | Path, out: Path, quantization: str, *, device: str = "auto") -> CheckpointLocation:
    """Write a model that is on this machine to a new folder `out`, quantized; where it was read from is returned.

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
        raise UsageError(f"{model} is in {stored.quantization} already.", "Name the model it was made of.")
    with appearing(out) as folder:
        size, free = _bytes_needed(stored, quantizer), shutil.disk_usage(folder).free
        if free < size * _ROOM:
            raise SfvqaError(
                f"The quantized model takes {readable_size(size)}, and the disk of {out.parent.absolute()} has "
                f"{readable_size(free)} free.",
                "Free some space, or name a folder on another disk.",
            )
        with memory_errors("quantizing the model"):
            write_shards(_quantized(stored, quantizer, where), folder)
        _write_rest(location, stored, kind, folder)
    return location


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
    """About what it takes on disk: a byte or half of one a quantized weight, and the rest as stored."""
    bits = {Quantization.EIGHT_BIT: 8, Quantization.FOUR_BIT: 4.2}[quantizer.kind]
    quantized = sum(stored.shapes[name].numel() for name in stored.quantizable)
    total = sum(stored.shapes[name].numel() for name in stored.parts)
    return int(quantized * bits / 8 + (total - quantized) * stored.dtype.itemsize)


def _write_rest(location: CheckpointLocation, stored: StoredModel, kind: Quantization, folder: Path) -> None:
    """Tokenizer and config; the latter also has what models.toml says of how the model looked at videos in training."""
    for name in _COPIED:
        if (location.folder / name).is_file():
            shutil.copyfile(location.folder / name, folder / name)
    config, spec = stored.config, location.spec
    trained = TrainedWith.of(spec, config.training_num_frames, config.training_sampling, config.training_crop)
    config.training_num_frames, config.training_sampling = trained.num_frames, trained.strategy
    config.training_crop = trained.crop
    config.training_max_length = spec.training_max_length if spec else config.training_max_length
    config.save_pretrained(folder)
    path = folder / "config.json"
    fields = json.loads(path.read_text(encoding="utf-8-sig"))
    fields["quantization_config"] = quantization_config(kind)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
