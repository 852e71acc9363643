"""Load a network from a checkpoint folder: strictly, straight onto its devices, one tensor file at a time.

A folder is checked against the network that its config describes; the network is built without memory and filled
tensor by tensor, so that there is no second copy and nothing is left empty.
"""

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from sfvqa.errors import CheckpointError
from sfvqa.model.config import (
    CHECK_CONFIG,
    FETCH_AGAIN,
    SlowFastConfig,
    read_config,
    read_json,
    reason_of,
)
from sfvqa.model.families import published_family
from sfvqa.model.quantization import (
    LinearQuantizer,
    Quantization,
    quantizable_linears,
    quantization_of,
    quantizer_for,
    stored_name,
)

DeviceMap = Mapping[str, torch.device]
"""Where the modules of these names go, with all that is in them; the empty name stands for the whole network."""

Placement = str | torch.device | DeviceMap | Callable[[Any], DeviceMap] | None
"""One device (None: the CPU), a device map, or what computes one from a network without memory."""


def build_empty(
    model_class: Any, config: SlowFastConfig, attention: str | None = None, described_in: str | Path = "a config"
) -> Any:
    """Build a network that takes no memory; CheckpointError if the config contradicts itself.

    Attention None is sdpa, whatever the config names: it may be compiled code on a hub, which transformers would fetch.
    """
    config = copy.deepcopy(config)
    config._attn_implementation = attention or "sdpa"
    try:
        with torch.device("meta"):
            return model_class(config)
    except CheckpointError:
        raise
    except Exception as error:  # torch and transformers find some contradictions only here
        raise CheckpointError(
            f"The model that {described_in} describes cannot be built: {reason_of(error)}.", CHECK_CONFIG
        ) from error


class ModelBuilder:
    """Fills an empty network with tensors in any order, placing, converting and quantizing each."""

    def __init__(
        self, model: Any, dtype: torch.dtype, placement: Placement = None, quantizer: LinearQuantizer | None = None
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.quantizer = quantizer
        self.quantized_weights = quantizer.replace_linears(model, dtype) if quantizer else frozenset()
        model.tie_weights(recompute_mapping=False)
        if callable(placement):
            placement = placement(model)
        places = placement if isinstance(placement, Mapping) else {"": placement or "cpu"}
        self.device_map: DeviceMap = {name: torch.device(device) for name, device in places.items()}

    def device_of(self, name: str) -> torch.device:
        """The device of a tensor or module."""
        while name and name not in self.device_map:
            name = name.rpartition(".")[0]
        return self.device_map[name]

    def put(self, name: str, parts: Mapping[str, Tensor], *, copy: bool = True) -> None:
        """Put one tensor in its place, from the parts that it is stored in; a weight to be quantized is quantized.

        Without `copy` the model keeps a tensor itself where it is on the device, in the dtype, already.
        """
        values, device = parts["weight"], self.device_of(name)
        if len(parts) == 1 and not values.is_floating_point():
            raise CheckpointError(f"The tensor {name} holds {str(values.dtype)[6:]}, not weights.", FETCH_AGAIN)
        module_name, _, own_name = name.rpartition(".")
        module = self.model.get_submodule(module_name)
        if name not in self.quantized_weights:
            setattr(module, own_name, nn.Parameter(values.to(device, self.dtype, copy=copy)))
            return
        quantizer = self.quantizer
        assert quantizer is not None
        parameter = quantizer.restore(parts, device) if len(parts) > 1 else quantizer.quantize(values.to(device))
        quantizer.attach(module, parameter, self.dtype)

    def finish(self) -> Any:
        """The whole network, ready to use; its layers hand tensors over from device to device where it has several."""
        model = self.model
        self._tie()
        for name, module in model.named_modules():
            if any(buffer.is_meta for buffer in module.buffers(recurse=False)):  # those that no checkpoint holds
                weights = {weight: weight.detach().clone() for weight in module.parameters()}
                for key, buffer in list(module.named_buffers(recurse=False)):
                    module._buffers[key] = torch.empty_like(buffer, device=self.device_of(name))
                with torch.no_grad():
                    _pretrained_owner(model, name)._init_weights(module)  # which begins all of its weights anew, too
                    for weight, values in weights.items():
                        weight.copy_(values)
        empty = [name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_meta]
        assert not empty, f"never given: {empty}"
        if len(set(self.device_map.values())) > 1:
            from accelerate import dispatch_model

            dispatch_model(model, dict(self.device_map), skip_keys=model._skip_keys_device_placement)
        model.eval()
        return model

    def _tie(self) -> None:
        for name, source in self.model.all_tied_weights_keys.items():
            given, kept = self.model.get_parameter(name), self.model.get_parameter(source)
            if not given.is_meta and given is not kept and not torch.equal(given.to(kept.device), kept):
                raise CheckpointError(
                    f"config.json ties {name} to {source}, and the checkpoint holds both with different values.",
                    "Set tie_word_embeddings to false in config.json, or fetch the checkpoint again.",
                )
        self.model.tie_weights(recompute_mapping=False)


def _pretrained_owner(model: Any, name: str) -> Any:
    """The model of transformers that a module is in, innermost: it knows how its own buffers begin."""
    while not hasattr(owner := model.get_submodule(name), "_init_weights"):
        name = name.rpartition(".")[0]
    return owner


class TensorFiles:
    """The tensors of a folder, in one file or in as many as its index names; one file is open at a time.

    `shapes` are by name, file by file. CheckpointError when built names an index that is damaged, a file that is
    missing or torn, or a tensor that is there twice.
    """

    def __init__(self, folder: Path) -> None:
        self.shapes: dict[str, list[int]] = {}
        self._paths: dict[str, Path] = {}
        self._open: tuple[Path | None, Any] = (None, None)
        for path in _tensor_paths(folder):
            file = self._opened(path)
            names = file.keys()
            if twice := sorted(self.shapes.keys() & set(names)):
                raise CheckpointError(f"{twice[0]} is in {path.name} and in another tensor file.", FETCH_AGAIN)
            self.shapes |= {name: file.get_slice(name).get_shape() for name in names}
            self._paths |= dict.fromkeys(names, path)

    def read(self, name: str) -> Tensor:
        """One tensor, as stored: a view of its file, to be copied if it is to outlive the next step."""
        path = self._paths[name]
        with _naming(path):
            tensor: Tensor = self._opened(path).get_tensor(name)
            return tensor

    def _opened(self, path: Path) -> Any:
        if self._open[0] != path:
            self._open = (None, None)  # closed before the next is opened
            with _naming(path):
                self._open = (path, safe_open(path, framework="pt"))
        return self._open[1]


def _tensor_paths(folder: Path) -> list[Path]:
    index, names = folder / "model.safetensors.index.json", ["model.safetensors"]
    if index.exists():
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not all(_is_file_name(name) for name in weight_map.values()):
            raise CheckpointError(f"{index} does not say which file holds which tensor.", FETCH_AGAIN)
        names = sorted(set(weight_map.values()))
    for name in names:
        if not (folder / name).is_file():
            raise CheckpointError(f"The tensor file {folder / name} is missing.", FETCH_AGAIN)
    return [folder / name for name in names]


def _is_file_name(name: object) -> bool:
    """Whether a file of an index lies beside it, not elsewhere on the disk."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", ":"}


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"The tensor file {path} is corrupt: {error}.", FETCH_AGAIN) from error


@dataclass(frozen=True, eq=False)
class StoredModel:
    """The contents of a checkpoint folder, with every tensor accounted for.

    `network` is built without memory. `parts` are what the files call the tensors that each of the network's tensors is
    stored in, by key: the one tensor itself under the key `weight` or, in a quantized checkpoint, all it takes to
    restore a weight.
    """

    network: Any
    config: SlowFastConfig
    files: TensorFiles
    quantization: Quantization
    parts: Mapping[str, Mapping[str, str]]

    @classmethod
    def of(
        cls, folder: Path, model_class: Any, config: SlowFastConfig | None = None, attention: str | None = None
    ) -> "StoredModel":
        """Read the config and the files' headers; CheckpointError names what is missing, unexpected or misshapen."""
        path = folder / "config.json"
        fields, config = read_json(path), config or read_config(folder)
        files, quantization = TensorFiles(folder), quantization_of(fields)
        network = build_empty(model_class, config, attention, path)
        quantizer, quantizable = quantizer_for(quantization), quantizable_linears(network)
        wanted: dict[str, list[int] | None] = {}
        stored_as: dict[str, dict[str, str]] = {}
        for name, tensor in network.state_dict().items():
            shapes: dict[str, tuple[int, ...] | None] = {"weight": tensor.shape}
            if quantizer is not None and name.removesuffix(".weight") in quantizable:
                shapes = quantizer.stored_shapes(tensor.shape)
            stored_as[name] = {key: stored_name(name, key) for key in shapes}
            wanted |= {stored_as[name][key]: None if shape is None else list(shape) for key, shape in shapes.items()}
        published = published_family(fields.get("model_type"))
        rename = str if published is None else published.rename_tensor
        unused = re.compile("|".join(config.family.unused_tensors) or "$^")
        names = {own: name for name in files.shapes if not unused.search(own := rename(name))}
        optional = network.all_tied_weights_keys.keys() - names.keys()
        refuse_misfits(
            folder,
            {own: files.shapes[name] for own, name in names.items()},
            {name: shape for name, shape in wanted.items() if name not in optional},
        )
        parts = {
            name: {key: names[own] for key, own in keys.items()} for name, keys in stored_as.items() if name in names
        }
        return cls(network, config, files, quantization, parts)

    def tensors(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """The network's tensors by name, each as its parts, file by file: copy what is to outlive the next step."""
        names = {parts["weight"]: name for name, parts in self.parts.items()}
        for stored in self.files.shapes:
            if (name := names.get(stored)) is not None:
                yield name, {key: self.files.read(part) for key, part in self.parts[name].items()}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights by the config, else that of the first one."""
        if self.config.stored_dtype is not None:
            return self.config.stored_dtype
        stored = (parts["weight"].dtype for _, parts in self.tensors())
        return next((dtype for dtype in stored if dtype.is_floating_point), torch.float32)


def refuse_misfits(folder: Path, found: Mapping[str, list[int]], wanted: Mapping[str, list[int] | None]) -> None:
    """Raise CheckpointError unless tensors have the wanted names and shapes; None accepts any shape."""
    complaints = []
    if missing := sorted(wanted.keys() - found.keys()):
        complaints.append(f"missing: {_some(missing)}")
    if unexpected := sorted(found.keys() - wanted.keys()):
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
    named, rest = ", ".join(names[:5]), len(names[5:])
    return f"{named} and {rest} more" if rest else named


def read_generation_config(folder: Path) -> GenerationConfig | None:
    """Read generation_config.json, None if there is none; CheckpointError for a damaged file."""
    path = folder / "generation_config.json"
    if not path.is_file():
        return None
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:  # TypeError: JSON that is no object
        raise CheckpointError(f"{path} cannot be read: {reason_of(error)}.", FETCH_AGAIN) from error
