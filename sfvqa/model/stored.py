"""A checkpoint folder, checked against the network its config describes, and its tensors by that network's names."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfvqa.errors import CheckpointError
from sfvqa.model.building import build_empty
from sfvqa.model.config import SlowFastConfig
from sfvqa.model.config_file import CHECK_CONFIG, read_config, reason_of
from sfvqa.model.quantization import LinearQuantizer, Quantization, quantizable_linears, quantization_of, quantizer_for
from sfvqa.model.reference_format import is_reference_config, rename_tensor
from sfvqa.model.tensor_files import FETCH_AGAIN, TensorFiles, read_json

NUM_NAMED_TENSORS = 5


@dataclass(frozen=True, eq=False)
class StoredModel:
    """What a checkpoint folder holds, every tensor accounted for.

    `shapes` are those of the network's tensors, `parts` what the files call the tensors each of them is stored in, by
    key: the one tensor itself under the key `weight` or, in a quantized copy, all it takes to restore a weight.
    """

    folder: Path
    config: SlowFastConfig
    files: TensorFiles
    quantization: Quantization
    shapes: Mapping[str, torch.Size]
    quantizable: frozenset[str]
    parts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(cls, folder: Path, model_class: Any, config: SlowFastConfig | None = None) -> "StoredModel":
        """Read the config and the files' headers; CheckpointError names what is missing, unexpected or misshapen."""
        fields = read_json(folder / "config.json")
        config = config or read_config(folder)
        files = TensorFiles.of(folder)
        quantization = quantization_of(fields)
        model = build_checked(model_class, folder, config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        rename = rename_tensor if is_reference_config(fields) else str
        found = {rename(name): (name, shape) for name, shape in files.shapes().items()}
        quantizable = frozenset(f"{name}.weight" for name in quantizable_linears(model))
        quantizer = quantizer_for(quantization)
        stored_as = {
            name: _stored_as(name, shape, quantizer if name in quantizable else None) for name, shape in shapes.items()
        }
        wanted = {own: shape for parts in stored_as.values() for own, shape in parts.values()}
        _refuse_misfits(folder, model, {name: shape for name, (_, shape) in found.items()}, wanted)
        parts = {
            name: {key: found[own][0] for key, (own, _) in parts.items()}
            for name, parts in stored_as.items()
            if name in found
        }
        return cls(folder, config, files, quantization, shapes, quantizable, parts)

    def tensors(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The network's tensors by name, each as its parts, file by file: copy what is to outlive the next step."""
        names = {parts["weight"]: name for name, parts in self.parts.items()}
        for shard in self.files.shards():
            for stored_name in shard.names:
                if (name := names.get(stored_name)) is not None:
                    yield name, {key: shard.read(part) for key, part in self.parts[name].items()}

    @property
    def dtype(self) -> torch.dtype:
        """What the config says its weights are, else what the first of them is."""
        if isinstance(self.config.dtype, torch.dtype):
            return self.config.dtype
        if self.config.dtype is not None:
            named: torch.dtype = getattr(torch, self.config.dtype)
            return named
        stored = (parts["weight"].dtype for _, parts in self.tensors())
        return next((dtype for dtype in stored if dtype.is_floating_point), torch.float32)


def build_checked(model_class: Any, folder: Path, config: SlowFastConfig, attention: str | None = None) -> Any:
    """The network without memory; CheckpointError when the config contradicts itself."""
    try:
        return build_empty(model_class, config, attention)
    except CheckpointError:
        raise
    except Exception as error:  # torch and transformers find some contradictions only here
        raise CheckpointError(
            f"The model that {folder / 'config.json'} describes cannot be built: {reason_of(error)}.", CHECK_CONFIG
        ) from error


def _stored_as(
    name: str, shape: torch.Size, quantizer: LinearQuantizer | None
) -> dict[str, tuple[str, list[int] | None]]:
    """By key, what our own format calls the parts of a tensor, and their shapes (None: one that varies)."""
    if quantizer is None:
        return {"weight": (name, list(shape))}
    shapes = quantizer.stored_shapes(tuple(shape))
    return {
        key: (quantizer.tensor_name(name, key), list(shape) if shape is not None else None)
        for key, shape in shapes.items()
    }


def _refuse_misfits(folder: Path, model: Any, found: dict[str, list[int]], wanted: dict[str, list[int] | None]) -> None:
    unused = "|".join(model._keys_to_ignore_on_load_unexpected)
    complaints = []
    if missing := sorted(wanted.keys() - found.keys() - model.all_tied_weights_keys.keys()):
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := sorted(name for name in found.keys() - wanted.keys() if not re.search(unused, name)):
        complaints.append(f"unexpected: {_some(unexpected)}")
    both = sorted(found.keys() & wanted.keys())
    if shapes := [
        f"{name} is {found[name]}, not {wanted[name]}" for name in both if wanted[name] not in (None, found[name])
    ]:
        complaints.append(f"of another shape: {_some(shapes)}")
    if complaints:
        raise CheckpointError(
            f"The tensors in {folder} do not fit the model its config.json describes ({'; '.join(complaints)}).",
            FETCH_AGAIN,
        )


def _some(names: list[str]) -> str:
    named = ", ".join(names[:NUM_NAMED_TENSORS])
    rest = len(names) - NUM_NAMED_TENSORS
    return named + (f" and {rest} more" if rest > 0 else "")
